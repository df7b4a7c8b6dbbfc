/* A PixeLINK SDK for machines without one: exports what pixelinkWrapper calls, and behaves like its cameras.
 *
 * All of it lies in the folder FAKEPIXELINK, so that a test can change it while a camera runs:
 *   SERIAL         the camera of that serial number is plugged in as long as this file is there
 *   SERIAL.lock    held (flock) by the process that has it open
 *   SERIAL.state   its exposure, gain, rate and mode: they outlive the process that set them
 *   SERIAL.fault   "CODE COUNT", hexadecimal and decimal: so many of its next frames end with that code; -1: all
 *   calls          one line for every call that opens, closes, starts, stops or sets
 *   mono           while it is there, a camera that is opened has MONO8, no auto exposure, and lets nothing be set while it streams
 *
 * A frame is BAYER8_GRBG: red on its left half, blue on its right. In its top row of blocks stands its number, at 5/6 of
 * its height the exposure it was really taken with, in microseconds, lowest bit first: two frames are on their way when
 * it is changed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

typedef int32_t code;
enum {
    OK = 0, CHANGED = 1, INVALID_HANDLE = (code)0x80000002, INVALID_PARAMETER = (code)0x80000003,
    TOO_SMALL = (code)0x80000004, NOT_SUPPORTED = (code)0x80000006, IN_USE = (code)0x80000007,
    NO_CAMERA = (code)0x80000008, NO_SERIAL = (code)0x8000000F, STOPPED = (code)0x80000012,
    OUT_OF_RANGE = (code)0x80000016, IO_ERROR = (code)0x80000011,
    OUT_OF_BANDWIDTH = (code)0x8000000B, WHILE_STREAMING = (code)0x9000001B,
};
enum { EXPOSURE = 7, GAIN = 8, FRAME_RATE = 18, ROI = 19, ADDRESSING = 21, FORMAT = 22, ACTUAL_RATE = 35 };
enum { PRESENCE = 1, MANUAL = 2, AUTO = 4, READ_ONLY = 64, STREAMING = 128 };
enum { MONO8 = 0, BAYER8 = 3, RGB24 = 4114, HANDLE_ = 4711, IN_FLIGHT = 2, WIDEST = 1280, HIGHEST = 1024 };

typedef struct { float least, most; } range;
typedef struct { uint32_t id, flags, count; range *ranges; } feature;
typedef struct { uint32_t size, count; feature *features; } features;

static const struct { uint32_t id, flags, count; range ranges[4]; } TABLE[] = {
    { EXPOSURE, PRESENCE | MANUAL | AUTO | STREAMING, 1, { { 0.00001f, 2.0f } } },
    { GAIN, PRESENCE | MANUAL | STREAMING, 1, { { 0.0f, 30.0f } } },
    { FRAME_RATE, PRESENCE | MANUAL, 1, { { 1.0f, 60.0f } } },
    { ROI, PRESENCE | MANUAL, 4, { { 0, WIDEST - 64 }, { 0, HIGHEST - 64 }, { 64, WIDEST }, { 64, HIGHEST } } },
    { ADDRESSING, PRESENCE | MANUAL, 4, { { 1, 2 }, { 0, 3 }, { 1, 2 }, { 1, 2 } } },
    { FORMAT, PRESENCE | MANUAL, 1, { { MONO8, BAYER8 } } },
    { ACTUAL_RATE, PRESENCE | READ_ONLY, 1, { { 0, 60 } } },
    { 9 /* iris */, 0, 1, { { 0, 0 } } },
};
enum { FEATURES = sizeof TABLE / sizeof *TABLE };

static struct {
    int open, lock, streaming, automatic, mono;
    uint32_t serial, number, left, top, width, height;
    float exposure, gain, rate, on_their_way[IN_FLIGHT];
    double due;
} camera;

static FILE *file(const char *name, const char *mode) {
    char path[4096];
    const char *folder = getenv("FAKEPIXELINK");
    snprintf(path, sizeof path, "%s/%s", folder ? folder : ".", name);
    return fopen(path, mode);
}

static int is_there(const char *name) {
    FILE *opened = file(name, "r");
    if (opened) fclose(opened);
    return opened != NULL;
}

static int is_plugged(uint32_t serial) {
    char name[32];
    snprintf(name, sizeof name, "%u", serial);
    return is_there(name);
}

static void say(const char *what, double value) {
    FILE *calls = file("calls", "a");
    if (!calls) return;
    fprintf(calls, "%s %g\n", what, value);
    fclose(calls);
}

static void keep(void) {
    char name[32];
    snprintf(name, sizeof name, "%u.state", camera.serial);
    FILE *state = file(name, "w");
    if (!state) return;
    fprintf(state, "%g %g %g %d", camera.exposure, camera.gain, camera.rate, camera.automatic);
    fclose(state);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static code check(void *handle) {
    if ((intptr_t)handle != HANDLE_ || !camera.open) return INVALID_HANDLE;
    return is_plugged(camera.serial) ? OK : IO_ERROR; /* as a pulled cable shows: with no word of a camera */
}

/* CAMERA_ID_INFO: 56 bytes, of which only the first two words matter here. */
typedef struct { uint32_t size, serial; uint8_t rest[48]; } identity;

code PxLGetNumberCamerasEx(identity *found, uint32_t *count) {
    uint32_t there = 0;
    for (uint32_t serial = 1001; serial <= 1004; serial++)
        if (is_plugged(serial)) {
            if (found && there < *count) found[there].serial = serial;
            there++;
        }
    *count = there;
    return OK;
}

code PxLInitializeEx(uint32_t serial, void **handle, uint32_t flags) {
    (void)flags;
    char name[32], path[4096];
    if (!is_plugged(serial)) return NO_SERIAL;
    snprintf(name, sizeof name, "%u.lock", serial);
    snprintf(path, sizeof path, "%s/%s", getenv("FAKEPIXELINK"), name);
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB)) {
        close(lock);
        return IN_USE;
    }
    memset(&camera, 0, sizeof camera);
    camera.open = 1, camera.lock = lock, camera.serial = serial;
    camera.width = WIDEST / 2, camera.height = HIGHEST / 2, camera.left = WIDEST / 4, camera.top = HIGHEST / 4;
    camera.exposure = 0.003096f, camera.rate = 30, camera.mono = is_there("mono");
    snprintf(name, sizeof name, "%u.state", serial);
    FILE *state = file(name, "r");
    if (state) {
        if (fscanf(state, "%f %f %f %d", &camera.exposure, &camera.gain, &camera.rate, &camera.automatic) != 4) abort();
        fclose(state);
    }
    say("open", serial);
    *handle = (void *)(intptr_t)HANDLE_;
    return OK;
}

code PxLUninitialize(void *handle) {
    if ((intptr_t)handle != HANDLE_ || !camera.open) return INVALID_HANDLE;
    say("close", camera.serial);
    close(camera.lock);
    camera.open = 0;
    return OK;
}

code PxLGetCameraInfoEx(void *handle, char *info, uint32_t size) {
    if (check(handle)) return check(handle);
    memset(info, 0, size);
    strcpy(info, "PixeLINK");
    strcpy(info + 33, "PL-FAKE");
    return OK;
}

typedef struct { code which; char function[64], name[64], report[256]; } told; /* as wide as from SDK 3.5 on */

code PxLGetErrorReport(void *handle, told *report) {
    if ((intptr_t)handle != HANDLE_) return INVALID_HANDLE;
    *report = (told){ OUT_OF_BANDWIDTH, "PxLGetNextFrame", "ApiOutOfBandwidthError", "told to fail" };
    return OK;
}

code PxLGetCameraFeatures(void *handle, uint32_t id, features *out, uint32_t *size) {
    uint32_t needed = sizeof *out + FEATURES * (sizeof(feature) + 4 * sizeof(range));
    if (check(handle)) return check(handle);
    if (id != 0xFFFFFFFFu) return NOT_SUPPORTED;
    if (!out) return *size = needed, OK;
    if (*size < needed) return TOO_SMALL;
    out->size = needed, out->count = FEATURES, out->features = (feature *)(out + 1);
    range *ranges = (range *)(out->features + FEATURES);
    for (int i = 0; i < FEATURES; i++, ranges += 4) {
        uint32_t flags = TABLE[i].flags;
        if (camera.mono && TABLE[i].id == EXPOSURE) flags &= ~AUTO;
        out->features[i] = (feature){ TABLE[i].id, flags, TABLE[i].count, ranges };
        memcpy(ranges, TABLE[i].ranges, sizeof TABLE[i].ranges);
    }
    return OK;
}

static float rate(void) { return fminf(camera.rate, 1 / camera.exposure); }

code PxLGetFeature(void *handle, uint32_t id, uint32_t *flags, uint32_t *count, float *values) {
    float all[4] = { 0 };
    if (check(handle)) return check(handle);
    for (int i = 0; i < FEATURES; i++) {
        if (TABLE[i].id != id || !TABLE[i].flags) continue;
        switch (id) {
        case EXPOSURE: all[0] = camera.exposure; break;
        case GAIN: all[0] = camera.gain; break;
        case FRAME_RATE: all[0] = camera.rate; break;
        case ACTUAL_RATE: all[0] = rate(); break;
        case ROI: all[0] = camera.left, all[1] = camera.top, all[2] = camera.width, all[3] = camera.height; break;
        case ADDRESSING: all[0] = all[2] = all[3] = 1; break;
        case FORMAT: all[0] = camera.mono ? MONO8 : BAYER8; break;
        }
        *flags = PRESENCE | (id == EXPOSURE && camera.automatic ? AUTO : MANUAL);
        if (values && *count < TABLE[i].count) return TOO_SMALL;
        *count = TABLE[i].count;
        if (values) memcpy(values, all, *count * sizeof *values);
        return OK;
    }
    return NOT_SUPPORTED;
}

code PxLSetFeature(void *handle, uint32_t id, uint32_t flags, uint32_t count, const float *values) {
    if (check(handle)) return check(handle);
    for (int i = 0; i < FEATURES; i++) {
        if (TABLE[i].id != id) continue;
        if (!(TABLE[i].flags & flags)) return INVALID_PARAMETER;
        if (camera.streaming && (camera.mono || !(TABLE[i].flags & STREAMING))) return WHILE_STREAMING;
        for (uint32_t at = 0; at < count; at++)
            if (values[at] < TABLE[i].ranges[at].least || values[at] > TABLE[i].ranges[at].most) return OUT_OF_RANGE;
        switch (id) {
        case EXPOSURE:
            camera.exposure = values[0], camera.automatic = (flags & AUTO) != 0;
            say("exposure", values[0]);
            break;
        case GAIN: camera.gain = values[0], say("gain", values[0]); break;
        case FRAME_RATE: camera.rate = values[0], say("rate", values[0]); break;
        case ROI: /* in steps of 16, as sensors have them */
            camera.left = values[0], camera.top = values[1];
            camera.width = (uint32_t)values[2] / 16 * 16, camera.height = (uint32_t)values[3] / 16 * 16;
            break;
        default: return NOT_SUPPORTED;
        }
        keep();
        return id == ROI ? CHANGED : OK;
    }
    return NOT_SUPPORTED;
}

code PxLSetStreamState(void *handle, uint32_t state) {
    if (check(handle)) return check(handle);
    say("stream", state);
    if (state == 0 && !camera.streaming) {
        for (int i = 0; i < IN_FLIGHT; i++) camera.on_their_way[i] = camera.exposure;
        camera.due = now();
    }
    camera.streaming = state == 0;
    return OK;
}

/* FRAME_DESC, as far as it is read: the number, then floats of which the region of interest is of use. */
typedef struct {
    uint32_t size;
    float time;
    uint32_t number;
    float until_roi[102];
    float left, top, width, height;
} description;

static void draw_bits(uint8_t *pixels, uint32_t row, uint32_t number) {
    uint32_t side = camera.width / 24 & ~1u;
    if (side > 16) side = 16;
    for (uint32_t bit = 0; bit < 24; bit++)
        for (uint32_t y = row; y < row + side; y++)
            memset(pixels + y * camera.width + bit * side, number >> bit & 1 ? 235 : 16, side);
}

static code fault(void) {
    unsigned which = 0;
    int left = 0;
    char name[32];
    snprintf(name, sizeof name, "%u.fault", camera.serial);
    FILE *opened = file(name, "r");
    if (!opened) return OK;
    int read = fscanf(opened, "%x %d", &which, &left);
    fclose(opened);
    if (read != 2 || !left) return OK;
    if (left > 0 && (opened = file(name, "w"))) {
        fprintf(opened, "%x %d", which, left - 1);
        fclose(opened);
    }
    usleep(10000);
    return (code)which;
}

code PxLGetNextFrame(void *handle, uint32_t size, uint8_t *pixels, description *desc) {
    code failed = check(handle);
    if (failed) return failed;
    if (!camera.streaming) return STOPPED;
    if ((failed = fault())) return failed;
    if (size < camera.width * camera.height) return TOO_SMALL;
    camera.due += 1 / rate();
    double wait = camera.due - now();
    if (wait > 0) usleep(wait * 1e6);
    else camera.due = now();
    if ((failed = check(handle))) return failed;
    for (uint32_t y = 0; y < camera.height; y++)
        for (uint32_t x = 0; x < camera.width; x++) {
            /* GRBG: green red / blue green */
            int is_red = !(y & 1) && (x & 1), is_blue = (y & 1) && !(x & 1), left = x < camera.width / 2;
            pixels[y * camera.width + x] = camera.mono ? 128 : (is_red && left) || (is_blue && !left) ? 200 : 20;
        }
    draw_bits(pixels, 0, ++camera.number);
    draw_bits(pixels, camera.height * 5 / 6 & ~1u, (uint32_t)(camera.on_their_way[0] * 1e6 + 0.5));
    memmove(camera.on_their_way, camera.on_their_way + 1, (IN_FLIGHT - 1) * sizeof(float));
    camera.on_their_way[IN_FLIGHT - 1] = camera.exposure;
    memset(desc, 0, desc->size);
    desc->number = camera.number;
    desc->width = camera.width, desc->height = camera.height;
    return OK;
}

code PxLFormatImage(const uint8_t *pixels, const description *desc, uint32_t format, uint8_t *out, uint32_t *size) {
    uint32_t width = desc->width, height = desc->height;
    if (format != RGB24 || !width || !height) return INVALID_PARAMETER;
    if (!out) return *size = width * height * 3, OK;
    if (*size < width * height * 3) return TOO_SMALL;
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++, out += 3) {
            const uint8_t *quad = pixels + (y & ~1u) * width + (x & ~1u);
            if (camera.mono) memset(out, pixels[y * width + x], 3);
            else out[0] = quad[1], out[1] = quad[0], out[2] = quad[width];
        }
    return OK;
}
