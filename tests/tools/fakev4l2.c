// fakev4l2.so: a V4L2 capture device for machines whose kernel has no camera, put under a program with LD_PRELOAD.
//
//   gcc -O2 -shared -fPIC -o fakev4l2.so fakev4l2.c -ldl -lpthread        (64-bit Linux, glibc 2.33 or newer)
//
// The camera
//   FAKEV4L2=/dev/video0,/dev/video1   device paths served (default /dev/video0)
//   FAKEV4L2_JPEGS=DIR         DIR/<W>x<H>/*.jpg are the MJPG frames, DIR/<W>x<H>/*.ppm the pictures that the raw
//                              formats show (where there is none: a drawn one); the folders are the sizes offered
//   FAKEV4L2_FPS=30            default (and maximum) rate
//   FAKEV4L2_FORMATS=MJPG,YUYV formats, preferred first: MJPG YUYV NV12 YU12 GREY RGB3 BGR3
//   FAKEV4L2_STATE=DIR         where the lock file of each device lies (default /tmp); when set, the control values
//                              live in that file too and outlast the process, as they do in a camera's own memory
//   FAKEV4L2_CLOCK=FILE        capture time of the newest 4096 frames: at (seq % 4096) * 16 seq and ns, u64 each
//   FAKEV4L2_NODHT=1           MJPG frames without Huffman tables, as many UVC cameras send them (the decoder is to
//                              assume the standard's own tables, so the files must have been made with those)
//   FAKEV4L2_NORATE=1          G_PARM and S_PARM succeed and say nothing, as gspca's cameras: 0/0
//   FAKEV4L2_LOG=1             unknown ioctls are written to stderr
// The faults; each is there while its FILE exists
//   FAKEV4L2_GONE=FILE         unplugged: open gives ENOENT, everything else ENODEV, the descriptor hangs up, for good
//   FAKEV4L2_STALL=FILE        no frames
//   FAKEV4L2_HANG=FILE         open and DQBUF do not return; signals other than SIGKILL wait until they do
//   FAKEV4L2_BROKEN=FILE       MJPG: even frames are cut in the middle, odd ones lack their EOI; raw: half a frame
//   FAKEV4L2_ERRFLAG=FILE      V4L2_BUF_FLAG_ERROR on every buffer
//   FAKEV4L2_BUSY=FILE         S_FMT, REQBUFS and STREAMON give EBUSY
//   FAKEV4L2_DENIED=FILE       open gives EACCES
//
// Every MJPG frame carries a COM segment behind its SOI: FFD8 FFFE 0016 'FV4L' seq:u64le t_mono_ns:u64le.
// Every raw frame shows its sequence number: bit i of 24 is a white (1) or black (0) block, the i-th from the left in
// the top row, 16 pixels square; in pictures narrower than 384 pixels the largest even size of which 24 fit.
//
// The descriptor is the read end of a pipe that holds one byte per filled buffer, so select, poll and epoll work
// unpatched. Nothing is written to stdout. Threads of one process may share a device: its ioctls are serialised as in
// the kernel.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#if __SIZEOF_POINTER__ != 8
#error "stat and stat64 are taken to be one structure, which holds on 64-bit machines only"
#endif

enum {
    MAX_DEVICES = 64,
    MAX_BUFFERS = 32,
    MAX_SIZES = 8,
    MAX_FORMATS = 8,
    DRAWN_PICTURES = 8,
    NUMBER_BITS = 24,
    CLOCK_SLOTS = 4096,
    COM_BYTES = 24,
};

// The real function of this name, looked up at its first use.
#define REAL(name, ret, ...)            \
    static ret (*real)(__VA_ARGS__);    \
    if (!real)                          \
    real = dlsym(RTLD_NEXT, #name)

static int fail(int error) {
    errno = error;
    return -1;
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// ---------------------------------------------------------------------------------------------------------------------
// Faults
// ---------------------------------------------------------------------------------------------------------------------

// Asked of the kernel directly: access() is one of the functions replaced below. faccessat is the one of the *at family
// whose system call has the same name on every architecture.
static int fault(const char *variable) {
    const char *file = getenv(variable);
    int before = errno;
    int there = file && *file && syscall(SYS_faccessat, AT_FDCWD, file, F_OK) == 0;
    errno = before;
    return there;
}

// A thread in uninterruptible sleep keeps its whole process alive through SIGTERM. From user space: this thread blocks
// its signals, and where the program left a signal to its deadly default, a handler keeps it until the sleep is over.
static const int DEADLY[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGALRM, SIGUSR1, SIGUSR2};
enum { NUM_DEADLY = sizeof DEADLY / sizeof *DEADLY };
static pthread_mutex_t hang_lock = PTHREAD_MUTEX_INITIALIZER;
static int hanging;
static int replaced[NUM_DEADLY];
static volatile sig_atomic_t kept[NUM_DEADLY];

static void keep_signal(int number) {
    for (int i = 0; i < NUM_DEADLY; i++)
        if (DEADLY[i] == number)
            kept[i] = 1;
}

static void hang_begins(void) {
    pthread_mutex_lock(&hang_lock);
    if (hanging++ == 0) {
        for (int i = 0; i < NUM_DEADLY; i++) {
            struct sigaction current;
            struct sigaction keeper = {.sa_handler = keep_signal, .sa_flags = SA_RESTART};
            kept[i] = 0;
            replaced[i] = sigaction(DEADLY[i], NULL, &current) == 0 && current.sa_handler == SIG_DFL;
            if (replaced[i])
                sigaction(DEADLY[i], &keeper, NULL);
        }
    }
    pthread_mutex_unlock(&hang_lock);
}

static void hang_ends(void) {
    pthread_mutex_lock(&hang_lock);
    if (--hanging == 0) {
        for (int i = 0; i < NUM_DEADLY; i++) {
            struct sigaction current;
            struct sigaction deadly = {.sa_handler = SIG_DFL};
            if (!replaced[i])
                continue;
            if (sigaction(DEADLY[i], NULL, &current) == 0 && current.sa_handler == keep_signal)
                sigaction(DEADLY[i], &deadly, NULL);
            if (kept[i])
                kill(getpid(), DEADLY[i]);
        }
    }
    pthread_mutex_unlock(&hang_lock);
}

static void hang_if_told(void) {
    if (!fault("FAKEV4L2_HANG"))
        return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    hang_begins();
    struct timespec pause = {0, 20000000};
    while (fault("FAKEV4L2_HANG"))
        nanosleep(&pause, NULL);
    hang_ends();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

// ---------------------------------------------------------------------------------------------------------------------
// What the camera can do: sizes with their pictures, formats, rate. Read from the environment once.
// ---------------------------------------------------------------------------------------------------------------------

typedef struct {
    const unsigned char *data;  // a file, mapped; never written to
    size_t length;
} blob;

typedef struct {
    unsigned width, height;
    blob *jpegs;
    int num_jpegs;
    blob *rgbs;  // width * height * 3 bytes each
    int num_rgbs;
} size_set;

typedef struct {
    uint32_t fourcc;
    const char *name;
    unsigned line_bytes;  // bytesperline for each pixel of width; 0: compressed
    unsigned size_halves;  // sizeimage in halves of a byte for each pixel
} format;

static const format FORMATS[] = {
    {V4L2_PIX_FMT_MJPEG, "Motion-JPEG", 0, 4},
    {V4L2_PIX_FMT_YUYV, "YUYV 4:2:2", 2, 4},
    {V4L2_PIX_FMT_NV12, "Y/UV 4:2:0", 1, 3},
    {V4L2_PIX_FMT_YUV420, "Planar YUV 4:2:0", 1, 3},
    {V4L2_PIX_FMT_GREY, "8-bit Greyscale", 1, 2},
    {V4L2_PIX_FMT_RGB24, "24-bit RGB 8-8-8", 3, 6},
    {V4L2_PIX_FMT_BGR24, "24-bit BGR 8-8-8", 3, 6},
};
enum { NUM_FORMATS = sizeof FORMATS / sizeof *FORMATS };

static pthread_once_t configured = PTHREAD_ONCE_INIT;
static size_set sizes[MAX_SIZES];
static int num_sizes;
static const format *formats[MAX_FORMATS];
static int num_formats;
static unsigned max_fps = 30;
static int log_unknown;
static int strip_tables;

static int map_file(const char *path, blob *into) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    void *data = MAP_FAILED;
    if (fstat(fd, &status) == 0 && status.st_size > 0)
        data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (data == MAP_FAILED)
        return 0;
    into->data = data;
    into->length = (size_t)status.st_size;
    return 1;
}

// Leaves the pixels of a binary PPM in the blob, or says no.
static int strip_ppm_header(blob *file, unsigned width, unsigned height) {
    char head[64] = {0};
    unsigned w, h, max;
    int used = 0;
    size_t pixels = (size_t)width * height * 3;
    memcpy(head, file->data, file->length < sizeof head - 1 ? file->length : sizeof head - 1);
    if (sscanf(head, "P6 %u %u %u%n", &w, &h, &max, &used) != 3 || w != width || h != height || max != 255)
        return 0;
    if (file->length < (size_t)used + 1 + pixels)
        return 0;
    file->data += used + 1;
    file->length = pixels;
    return 1;
}

static int map_folder(const char *folder, const char *ending, blob **into) {
    char pattern[512];
    glob_t found;
    int n = 0;
    snprintf(pattern, sizeof pattern, "%s/*.%s", folder, ending);
    if (glob(pattern, 0, NULL, &found) != 0)
        return 0;
    *into = calloc(found.gl_pathc, sizeof **into);
    for (size_t i = 0; *into && i < found.gl_pathc; i++)
        n += map_file(found.gl_pathv[i], &(*into)[n]);
    globfree(&found);
    return n;
}

static void read_sizes(void) {
    const char *folder = getenv("FAKEV4L2_JPEGS");
    char pattern[512];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/*x*", folder ? folder : "/nonexistent");
    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc && num_sizes < MAX_SIZES; i++) {
            size_set *s = &sizes[num_sizes];
            if (sscanf(strrchr(found.gl_pathv[i], '/') + 1, "%ux%u", &s->width, &s->height) != 2)
                continue;
            s->num_jpegs = map_folder(found.gl_pathv[i], "jpg", &s->jpegs);
            int num_ppms = map_folder(found.gl_pathv[i], "ppm", &s->rgbs);
            for (int k = 0; k < num_ppms; k++)
                if (strip_ppm_header(&s->rgbs[k], s->width, s->height))
                    s->rgbs[s->num_rgbs++] = s->rgbs[k];
            num_sizes++;
        }
        globfree(&found);
    }
    if (num_sizes == 0) {
        sizes[0].width = 640;
        sizes[0].height = 480;
        num_sizes = 1;
    }
}

static int compressed(const format *f) {
    return f->line_bytes == 0;
}

// A size without JPEG files is offered for the raw formats only.
static int offered(const format *f, const size_set *s) {
    return !compressed(f) || s->num_jpegs > 0;
}

static int offered_at_all(const format *f) {
    for (int i = 0; i < num_sizes; i++)
        if (offered(f, &sizes[i]))
            return 1;
    return 0;
}

static void read_formats(void) {
    const char *wanted = getenv("FAKEV4L2_FORMATS");
    char list[64], *rest;
    snprintf(list, sizeof list, "%s", wanted ? wanted : "MJPG,YUYV");
    for (char *name = strtok_r(list, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        if (strlen(name) != 4 || num_formats == MAX_FORMATS)
            continue;
        uint32_t fourcc = v4l2_fourcc(name[0], name[1], name[2], name[3]);
        for (int i = 0; i < NUM_FORMATS; i++)
            if (FORMATS[i].fourcc == fourcc && offered_at_all(&FORMATS[i]))
                formats[num_formats++] = &FORMATS[i];
    }
    if (num_formats == 0)
        formats[num_formats++] = &FORMATS[1];
}

static void configure(void) {
    const char *fps = getenv("FAKEV4L2_FPS");
    const char *no_tables = getenv("FAKEV4L2_NODHT");
    if (fps && atoi(fps) > 0)
        max_fps = (unsigned)atoi(fps);
    log_unknown = getenv("FAKEV4L2_LOG") != NULL;
    strip_tables = no_tables && *no_tables && strcmp(no_tables, "0") != 0;
    read_sizes();
    read_formats();
}

// Is this path one of the camera's? Reads nothing but the environment: it runs on every open of the program.
static int ours(const char *path) {
    if (!path || path[0] != '/')
        return 0;
    const char *list = getenv("FAKEV4L2");
    if (!list)
        list = "/dev/video0";
    size_t n = strlen(path);
    for (const char *at = list; (at = strstr(at, path)); at += n)
        if ((at == list || at[-1] == ',') && (at[n] == '\0' || at[n] == ','))
            return 1;
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// Raw pictures
// ---------------------------------------------------------------------------------------------------------------------

// Full-range R'G'B' to limited-range BT.601, which is what V4L2 means by a YUV format whose colorspace is sRGB.
static unsigned char luma(const unsigned char *p) {
    return (unsigned char)(16 + ((66 * p[0] + 129 * p[1] + 25 * p[2] + 128) >> 8));
}

static void chroma(int r, int g, int b, unsigned char *u, unsigned char *v) {
    *u = (unsigned char)(128 + ((-38 * r - 74 * g + 112 * b + 128) >> 8));
    *v = (unsigned char)(128 + ((112 * r - 94 * g - 18 * b + 128) >> 8));
}

static void rgb_to_yuyv(const unsigned char *rgb, unsigned w, unsigned h, unsigned char *out) {
    for (size_t i = 0; i < (size_t)w * h / 2; i++, rgb += 6, out += 4) {
        out[0] = luma(rgb);
        out[2] = luma(rgb + 3);
        chroma((rgb[0] + rgb[3]) / 2, (rgb[1] + rgb[4]) / 2, (rgb[2] + rgb[5]) / 2, &out[1], &out[3]);
    }
}

// 4:2:0: each colour sample is the mean of four pixels; it lies `step` bytes before its right-hand neighbour.
static void rgb_to_420(const unsigned char *rgb, unsigned w, unsigned h, unsigned char *y, unsigned char *u,
                       unsigned char *v, unsigned step) {
    for (size_t i = 0; i < (size_t)w * h; i++)
        y[i] = luma(rgb + i * 3);
    for (unsigned row = 0; row + 1 < h; row += 2) {
        for (unsigned column = 0; column + 1 < w; column += 2) {
            const unsigned char *a = rgb + ((size_t)row * w + column) * 3;
            const unsigned char *b = a + (size_t)w * 3;
            int mean[3];
            for (int k = 0; k < 3; k++)
                mean[k] = (a[k] + a[k + 3] + b[k] + b[k + 3]) / 4;
            size_t at = ((size_t)(row / 2) * (w / 2) + column / 2) * step;
            chroma(mean[0], mean[1], mean[2], u + at, v + at);
        }
    }
}

static void convert(const unsigned char *rgb, unsigned w, unsigned h, uint32_t fourcc, unsigned char *out) {
    size_t n = (size_t)w * h;
    switch (fourcc) {
    case V4L2_PIX_FMT_YUYV:
        rgb_to_yuyv(rgb, w, h, out);
        break;
    case V4L2_PIX_FMT_NV12:
        rgb_to_420(rgb, w, h, out, out + n, out + n + 1, 2);
        break;
    case V4L2_PIX_FMT_YUV420:
        rgb_to_420(rgb, w, h, out, out + n, out + n + n / 4, 1);
        break;
    case V4L2_PIX_FMT_GREY:  // a monochrome sensor counts from 0 to 255
        for (size_t i = 0; i < n; i++)
            out[i] = (unsigned char)((77 * rgb[i * 3] + 150 * rgb[i * 3 + 1] + 29 * rgb[i * 3 + 2] + 128) >> 8);
        break;
    case V4L2_PIX_FMT_BGR24:
        for (size_t i = 0; i < n; i++) {
            out[i * 3] = rgb[i * 3 + 2];
            out[i * 3 + 1] = rgb[i * 3 + 1];
            out[i * 3 + 2] = rgb[i * 3];
        }
        break;
    default:
        memcpy(out, rgb, n * 3);
    }
}

// What a raw format shows where no PPM file is: slopes of red and green, bars of blue, and some noise.
static void draw(unsigned char *rgb, unsigned w, unsigned h, unsigned shift) {
    unsigned noise = 1;
    for (unsigned y = 0; y < h; y++) {
        for (unsigned x = 0; x < w; x++, rgb += 3) {
            noise = noise * 1664525u + 1013904223u;
            rgb[0] = (unsigned char)((x + shift) % w * 239 / w + (noise >> 28));
            rgb[1] = (unsigned char)(y * 239 / h + (noise >> 24 & 15));
            rgb[2] = (unsigned char)(((x + shift) / 40 % 2 ? 200 : 40) + (noise >> 20 & 15));
        }
    }
}

static size_t picture_bytes(const format *f, unsigned w, unsigned h) {
    return (size_t)w * h * f->size_halves / 2 + (compressed(f) ? 64 : 0);
}

// Converted once for a size and a format and kept as long as the process lives.
typedef struct {
    unsigned char *pixels;
    int count;
} picture_set;
static picture_set converted[MAX_SIZES][NUM_FORMATS];
static pthread_mutex_t converted_lock = PTHREAD_MUTEX_INITIALIZER;

static const picture_set *raw_pictures(int size_index, const format *f) {
    const size_set *s = &sizes[size_index];
    picture_set *set = &converted[size_index][f - FORMATS];
    size_t bytes = picture_bytes(f, s->width, s->height);
    pthread_mutex_lock(&converted_lock);
    if (!set->pixels) {
        int count = s->num_rgbs ? s->num_rgbs : DRAWN_PICTURES;
        unsigned char *drawn = s->num_rgbs ? NULL : malloc((size_t)s->width * s->height * 3);
        unsigned char *pixels = malloc(bytes * (size_t)count);
        for (int i = 0; pixels && i < count; i++) {
            const unsigned char *rgb = drawn;
            if (drawn)
                draw(drawn, s->width, s->height, (unsigned)i * s->width / DRAWN_PICTURES);
            else
                rgb = s->rgbs[i].data;
            convert(rgb, s->width, s->height, f->fourcc, pixels + bytes * (size_t)i);
        }
        free(drawn);
        set->count = count;
        set->pixels = pixels;
    }
    pthread_mutex_unlock(&converted_lock);
    return set->pixels ? set : NULL;
}

static void fill_rows(unsigned char *at, size_t stride, unsigned rows, size_t bytes, int value) {
    for (unsigned row = 0; row < rows; row++)
        memset(at + row * stride, value, bytes);
}

static void draw_number(unsigned char *out, unsigned w, unsigned h, uint32_t fourcc, uint64_t number) {
    unsigned block = w / NUMBER_BITS & ~1u;
    if (block > 16)
        block = 16;
    if (block == 0 || h < block)
        return;
    size_t n = (size_t)w * h;
    for (unsigned bit = 0; bit < NUMBER_BITS; bit++) {
        int white = number >> bit & 1;
        size_t x = (size_t)bit * block;
        switch (fourcc) {
        case V4L2_PIX_FMT_YUYV:
            for (unsigned row = 0; row < block; row++) {
                unsigned char *line = out + ((size_t)row * w + x) * 2;
                for (unsigned i = 0; i < block; i++) {
                    line[i * 2] = white ? 235 : 16;
                    line[i * 2 + 1] = 128;
                }
            }
            break;
        case V4L2_PIX_FMT_NV12:
            fill_rows(out + x, w, block, block, white ? 235 : 16);
            fill_rows(out + n + x, w, block / 2, block, 128);
            break;
        case V4L2_PIX_FMT_YUV420:
            fill_rows(out + x, w, block, block, white ? 235 : 16);
            fill_rows(out + n + x / 2, w / 2, block / 2, block / 2, 128);
            fill_rows(out + n + n / 4 + x / 2, w / 2, block / 2, block / 2, 128);
            break;
        case V4L2_PIX_FMT_GREY:
            fill_rows(out + x, w, block, block, white ? 255 : 0);
            break;
        default:
            fill_rows(out + x * 3, (size_t)w * 3, block, (size_t)block * 3, white ? 255 : 0);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Controls
// ---------------------------------------------------------------------------------------------------------------------

typedef struct {
    uint32_t id, type;
    const char *name;
    int32_t minimum, maximum, step, preset;
} control;

static const control CONTROLS[] = {
    {V4L2_CID_BRIGHTNESS, V4L2_CTRL_TYPE_INTEGER, "Brightness", -64, 64, 1, 0},
    {V4L2_CID_CONTRAST, V4L2_CTRL_TYPE_INTEGER, "Contrast", 0, 64, 1, 32},
    {V4L2_CID_GAIN, V4L2_CTRL_TYPE_INTEGER, "Gain", 0, 255, 1, 64},
    {V4L2_CID_HFLIP, V4L2_CTRL_TYPE_BOOLEAN, "Horizontal Flip", 0, 1, 1, 0},
    {V4L2_CID_POWER_LINE_FREQUENCY, V4L2_CTRL_TYPE_MENU, "Power Line Frequency", 0, 2, 1, 1},
    {V4L2_CID_EXPOSURE_AUTO, V4L2_CTRL_TYPE_MENU, "Auto Exposure", 0, 3, 1, V4L2_EXPOSURE_APERTURE_PRIORITY},
    {V4L2_CID_EXPOSURE_ABSOLUTE, V4L2_CTRL_TYPE_INTEGER, "Exposure Time, Absolute", 3, 2047, 1, 250},  // 100 us each
};
enum { NUM_CONTROLS = sizeof CONTROLS / sizeof *CONTROLS, MEMORY_MAGIC = 0x34564b46 };

// The camera's own memory. Lies in the lock file when FAKEV4L2_STATE names a folder: magic, then the values in the
// order of the table above, 32 bits each.
typedef struct {
    uint32_t magic;
    int32_t values[NUM_CONTROLS];
} memory;

static void forget(memory *m) {
    for (int i = 0; i < NUM_CONTROLS; i++)
        m->values[i] = CONTROLS[i].preset;
    m->magic = MEMORY_MAGIC;
}

static const char *menu_item(uint32_t id, uint32_t index) {
    static const char *frequencies[] = {"Disabled", "50 Hz", "60 Hz"};
    if (id == V4L2_CID_POWER_LINE_FREQUENCY && index < 3)
        return frequencies[index];
    // Most UVC cameras know two of the four modes; the menu has holes.
    if (id == V4L2_CID_EXPOSURE_AUTO && index == V4L2_EXPOSURE_MANUAL)
        return "Manual Mode";
    if (id == V4L2_CID_EXPOSURE_AUTO && index == V4L2_EXPOSURE_APERTURE_PRIORITY)
        return "Aperture Priority Mode";
    return NULL;
}

static int find_control(uint32_t id) {
    for (int i = 0; i < NUM_CONTROLS; i++)
        if (CONTROLS[i].id == id)
            return i;
    return -1;
}

static int control_value(const memory *m, uint32_t id) {
    return m->values[find_control(id)];
}

static int query_control(const memory *m, struct v4l2_queryctrl *q) {
    uint32_t id = q->id & V4L2_CTRL_ID_MASK;
    int found = -1;
    if (q->id & V4L2_CTRL_FLAG_NEXT_CTRL) {
        for (int i = 0; i < NUM_CONTROLS; i++)
            if (CONTROLS[i].id > id && (found < 0 || CONTROLS[i].id < CONTROLS[found].id))
                found = i;
    } else if (!(q->id & V4L2_CTRL_FLAG_NEXT_COMPOUND)) {
        found = find_control(id);
    }
    if (found < 0)
        return fail(EINVAL);
    const control *c = &CONTROLS[found];
    memset(q, 0, sizeof *q);
    q->id = c->id;
    q->type = c->type;
    snprintf((char *)q->name, sizeof q->name, "%s", c->name);
    q->minimum = c->minimum;
    q->maximum = c->maximum;
    q->step = c->step;
    q->default_value = c->preset;
    if (c->id == V4L2_CID_EXPOSURE_ABSOLUTE && control_value(m, V4L2_CID_EXPOSURE_AUTO) != V4L2_EXPOSURE_MANUAL)
        q->flags = V4L2_CTRL_FLAG_INACTIVE;
    return 0;
}

static int query_extended(const memory *m, struct v4l2_query_ext_ctrl *q) {
    struct v4l2_queryctrl plain = {.id = q->id};
    if (query_control(m, &plain) != 0)
        return -1;
    memset(q, 0, sizeof *q);
    q->id = plain.id;
    q->type = plain.type;
    memcpy(q->name, plain.name, sizeof plain.name);
    q->minimum = plain.minimum;
    q->maximum = plain.maximum;
    q->step = (uint64_t)plain.step;
    q->default_value = plain.default_value;
    q->flags = plain.flags;
    q->elem_size = 4;
    q->elems = 1;
    return 0;
}

// As uvcvideo does it (uvc_ctrl_set): integers are rounded to the step and clamped, with no error; booleans become 0 or
// 1; a menu index outside the range gives ERANGE, one in a hole of the menu EINVAL.
static int admissible(const control *c, int32_t *value) {
    switch (c->type) {
    case V4L2_CTRL_TYPE_BOOLEAN:
        *value = *value != 0;
        return 0;
    case V4L2_CTRL_TYPE_MENU:
        if (*value < c->minimum || *value > c->maximum)
            return fail(ERANGE);
        return menu_item(c->id, (uint32_t)*value) ? 0 : fail(EINVAL);
    default:
        if (*value < c->minimum)
            *value = c->minimum;
        if (*value > c->maximum)
            *value = c->maximum;
        return 0;
    }
}

// All or none. Exposure while the camera chooses it gives EACCES: uvcvideo has refused that itself since "media:
// uvcvideo: Check for INACTIVE in uvc_ctrl_is_accessible()" (Linux 6.3, and 6.1's stable series); before, it asked the
// camera, which either refused or took no notice. What counts is the mode after this call, when the call sets that too.
static int set_controls(memory *m, struct v4l2_ext_control *wanted, unsigned count, int really, unsigned *error_at) {
    int mode = control_value(m, V4L2_CID_EXPOSURE_AUTO);
    for (unsigned k = 0; k < count; k++)
        if (wanted[k].id == V4L2_CID_EXPOSURE_AUTO)
            mode = wanted[k].value;
    for (unsigned k = 0; k < count; k++) {
        int i = find_control(wanted[k].id);
        // An error before anything was touched is reported with the number of controls in place of an index.
        *error_at = really ? count : k;
        if (i < 0)
            return fail(EINVAL);
        if (wanted[k].id == V4L2_CID_EXPOSURE_ABSOLUTE && mode != V4L2_EXPOSURE_MANUAL)
            return fail(EACCES);
    }
    for (unsigned k = 0; k < count; k++) {
        *error_at = k;
        int32_t value = wanted[k].value;
        if (admissible(&CONTROLS[find_control(wanted[k].id)], &value) != 0)
            return -1;
        wanted[k].value = value;
    }
    for (unsigned k = 0; really && k < count; k++)
        m->values[find_control(wanted[k].id)] = wanted[k].value;
    return 0;
}

static int get_controls(const memory *m, struct v4l2_ext_controls *x) {
    for (unsigned k = 0; k < x->count; k++) {
        int i = find_control(x->controls[k].id);
        x->error_idx = x->count;
        if (i < 0)
            return fail(EINVAL);
        x->controls[k].value = x->which == V4L2_CTRL_WHICH_DEF_VAL ? CONTROLS[i].preset : m->values[i];
    }
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------
// Devices: one slot for each successful open
// ---------------------------------------------------------------------------------------------------------------------

enum slot_state { FREE, TAKEN, OPEN, CLOSED };
enum buffer_state { IDLE, QUEUED, DONE };

typedef struct {
    atomic_int slot;   // enum slot_state; only an OPEN one is found by its descriptor
    atomic_int users;  // calls under way; a CLOSED slot becomes FREE when the last one has left
    atomic_int fd;     // read end of the pipe
    atomic_int streaming;
    atomic_int dead;  // was unplugged once: this descriptor never works again, as with the kernel's
    pid_t owner;      // a fork has the descriptors, and no producer thread
    char path[128];
    pthread_mutex_t serial;  // every ioctl but QUERYBUF, QBUF and DQBUF; taken before `lock`
    pthread_mutex_t lock;    // the buffers, the queues and the write end
    int write_fd, lock_fd, clock_fd, memory_fd;
    memory *controls;

    int size_index;
    const format *format;
    unsigned interval_num, interval_den;

    int num_buffers;
    size_t buffer_bytes;
    unsigned char *buffers;
    struct v4l2_buffer meta[MAX_BUFFERS];
    enum buffer_state states[MAX_BUFFERS];
    int queued[MAX_BUFFERS], num_queued;
    int done[MAX_BUFFERS], num_done;
    const picture_set *pictures;

    uint64_t seq;
    pthread_t producer;
} device;

static device devices[MAX_DEVICES];
static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;

static device *find(int fd) {
    for (int i = 0; fd >= 0 && i < MAX_DEVICES; i++)
        if (atomic_load(&devices[i].slot) == OPEN && atomic_load(&devices[i].fd) == fd)
            return &devices[i];
    return NULL;
}

static device *acquire(int fd) {
    device *d = find(fd);
    if (!d)
        return NULL;
    atomic_fetch_add(&d->users, 1);
    if (atomic_load(&d->slot) == OPEN && atomic_load(&d->fd) == fd)
        return d;
    atomic_fetch_sub(&d->users, 1);
    return NULL;
}

static void free_slot_if_unused(device *d) {
    int closed = CLOSED;
    if (atomic_load(&d->users) == 0)
        atomic_compare_exchange_strong(&d->slot, &closed, FREE);
}

static void release(device *d) {
    atomic_fetch_sub(&d->users, 1);
    free_slot_if_unused(d);
}

static void hang_up(device *d) {
    pthread_mutex_lock(&d->lock);
    int fd = d->write_fd;
    d->write_fd = -1;
    if (!atomic_exchange(&d->dead, 1))
        forget(d->controls);  // without power the camera loses its settings
    pthread_mutex_unlock(&d->lock);
    if (fd >= 0)
        close(fd);
}

static int unplugged(device *d) {
    if (!atomic_load(&d->dead) && fault("FAKEV4L2_GONE"))
        hang_up(d);
    return atomic_load(&d->dead);
}

// ---------------------------------------------------------------------------------------------------------------------
// Frames
// ---------------------------------------------------------------------------------------------------------------------

// Copies a JPEG file behind its SOI, without the DHT segments if so told; at most `room` bytes.
static size_t copy_jpeg(unsigned char *out, size_t room, const blob *jpeg) {
    const unsigned char *from = jpeg->data + 2, *end = jpeg->data + jpeg->length;
    unsigned char *to = out;
    while (strip_tables && from + 4 <= end && from[0] == 0xff && from[1] != 0xda) {
        size_t segment = 2u + ((size_t)from[2] << 8 | from[3]);
        if (from + segment > end || (size_t)(to - out) + segment > room)
            break;
        if (from[1] != 0xc4) {
            memcpy(to, from, segment);
            to += segment;
        }
        from += segment;
    }
    size_t rest = (size_t)(end - from);
    if (rest > room - (size_t)(to - out))
        rest = room - (size_t)(to - out);
    memcpy(to, from, rest);
    return (size_t)(to - out) + rest;
}

static size_t fill(device *d, unsigned char *out, uint64_t captured_ns) {
    const size_set *s = &sizes[d->size_index];
    int broken = fault("FAKEV4L2_BROKEN");
    if (!compressed(d->format)) {
        size_t bytes = picture_bytes(d->format, s->width, s->height);
        memcpy(out, d->pictures->pixels + bytes * (d->seq % (unsigned)d->pictures->count), bytes);
        draw_number(out, s->width, s->height, d->format->fourcc, d->seq);
        return broken ? bytes / 2 : bytes;
    }
    memcpy(out, "\xff\xd8\xff\xfe\x00\x16" "FV4L", 10);
    memcpy(out + 10, &d->seq, 8);
    memcpy(out + 18, &captured_ns, 8);
    const blob *jpeg = &s->jpegs[d->seq % (unsigned)s->num_jpegs];
    size_t bytes = 2 + COM_BYTES + copy_jpeg(out + 2 + COM_BYTES, d->buffer_bytes - 2 - COM_BYTES, jpeg);
    if (broken)
        return d->seq % 2 ? bytes - 2 : bytes / 2;
    return bytes;
}

static void note_time(device *d, uint64_t captured_ns) {
    uint64_t entry[2] = {d->seq, captured_ns};
    if (d->clock_fd >= 0 && pwrite(d->clock_fd, entry, sizeof entry, (off_t)(d->seq % CLOCK_SLOTS * sizeof entry)) < 0)
        d->clock_fd = -1;
}

// A frame for which no buffer is queued is lost, but counted: the gap in `sequence` is how a driver says so.
static void produce(device *d) {
    pthread_mutex_lock(&d->lock);
    d->seq++;
    if (d->num_queued > 0 && atomic_load(&d->streaming) && d->write_fd >= 0) {
        int i = d->queued[0];
        memmove(d->queued, d->queued + 1, (size_t)--d->num_queued * sizeof *d->queued);
        uint64_t t = now_ns();
        note_time(d, t);
        struct v4l2_buffer *b = &d->meta[i];
        b->bytesused = (uint32_t)fill(d, d->buffers + (size_t)i * d->buffer_bytes, t);
        b->sequence = (uint32_t)d->seq;
        b->timestamp.tv_sec = (time_t)(t / 1000000000u);
        b->timestamp.tv_usec = (suseconds_t)(t / 1000 % 1000000);
        b->flags = fault("FAKEV4L2_ERRFLAG") ? V4L2_BUF_FLAG_ERROR : 0;
        d->states[i] = DONE;
        d->done[d->num_done++] = i;
        if (write(d->write_fd, "F", 1) < 0 && log_unknown)
            fprintf(stderr, "fakev4l2: the pipe is full\n");
    }
    pthread_mutex_unlock(&d->lock);
}

static void *run_producer(void *argument) {
    device *d = argument;
    uint64_t period = 1000000000ull * d->interval_num / d->interval_den;
    uint64_t next = now_ns() + period;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);  // the program's signals are for its own threads
    while (atomic_load(&d->streaming)) {
        struct timespec until = {(time_t)(next / 1000000000u), (long)(next % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        next += period;
        if (next + 5 * period < now_ns())  // the machine slept: no burst to catch up
            next = now_ns() + period;
        if (!unplugged(d) && !fault("FAKEV4L2_STALL"))
            produce(d);
    }
    return NULL;
}

static void stop(device *d) {
    char token;
    if (!atomic_exchange(&d->streaming, 0))
        return;
    pthread_join(d->producer, NULL);
    pthread_mutex_lock(&d->lock);
    for (; d->num_done > 0; d->num_done--)
        if (read(d->fd, &token, 1) < 0)
            break;
    d->num_done = 0;
    d->num_queued = 0;
    memset(d->states, 0, sizeof d->states);
    pthread_mutex_unlock(&d->lock);
}

static void free_buffers(device *d) {
    stop(d);
    pthread_mutex_lock(&d->lock);
    if (d->buffers)
        munmap(d->buffers, d->buffer_bytes * (size_t)d->num_buffers);
    if (d->memory_fd >= 0)
        close(d->memory_fd);
    d->buffers = NULL;
    d->memory_fd = -1;
    d->num_buffers = 0;
    pthread_mutex_unlock(&d->lock);
    if (d->lock_fd >= 0)
        flock(d->lock_fd, LOCK_UN);
}

// ---------------------------------------------------------------------------------------------------------------------
// Open and close
// ---------------------------------------------------------------------------------------------------------------------

// Values that only this process sees, for each path; used unless FAKEV4L2_STATE names a place for them.
static memory *own_memory(const char *path) {
    static struct {
        char path[128];
        memory values;
    } known[MAX_DEVICES];
    for (int i = 0; i < MAX_DEVICES; i++) {
        if (!known[i].path[0]) {
            snprintf(known[i].path, sizeof known[i].path, "%s", path);
            forget(&known[i].values);
        }
        if (strcmp(known[i].path, path) == 0)
            return &known[i].values;
    }
    return &known[0].values;
}

static memory *kept_memory(int fd) {
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0)
        return NULL;
    if (status.st_size < (off_t)sizeof(memory) && ftruncate(fd, sizeof(memory)) != 0)
        return NULL;
    // Stays mapped when the device is closed: a few bytes for each opening, in a program that tests something.
    memory *m = mmap(NULL, sizeof(memory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (m == MAP_FAILED)
        return NULL;
    if (m->magic != MEMORY_MAGIC)
        forget(m);
    return m;
}

static int open_lock_file(const char *folder, const char *path) {
    char file[512];
    size_t n = (size_t)snprintf(file, sizeof file, "%s/fakev4l2", folder);
    if (n >= sizeof file)
        return -1;
    snprintf(file + n, sizeof file - n, "%s.lock", path);
    for (char *c = file + n; *c; c++)
        if (*c == '/')
            *c = '_';
    return open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
}

static device *take_slot(void) {
    for (int i = 0; i < MAX_DEVICES; i++) {
        int expected = FREE;
        if (atomic_compare_exchange_strong(&devices[i].slot, &expected, TAKEN))
            return &devices[i];
    }
    return NULL;
}

static int open_device(const char *path, int flags) {
    pthread_once(&configured, configure);
    hang_if_told();
    if (fault("FAKEV4L2_GONE"))
        return fail(ENOENT);
    if (fault("FAKEV4L2_DENIED"))
        return fail(EACCES);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return -1;
    if (!(flags & O_NONBLOCK))
        fcntl(ends[0], F_SETFL, fcntl(ends[0], F_GETFL) & ~O_NONBLOCK);

    pthread_mutex_lock(&slots_lock);
    device *d = take_slot();
    if (d) {
        const char *state = getenv("FAKEV4L2_STATE"), *clock = getenv("FAKEV4L2_CLOCK");
        snprintf(d->path, sizeof d->path, "%s", path);
        d->owner = getpid();
        d->dead = 0;
        d->streaming = 0;
        d->write_fd = ends[1];
        d->memory_fd = -1;
        d->lock_fd = open_lock_file(state && *state ? state : "/tmp", path);
        d->clock_fd = clock && *clock ? open(clock, O_WRONLY | O_CREAT | O_CLOEXEC, 0666) : -1;
        d->controls = state && *state ? kept_memory(d->lock_fd) : NULL;
        if (!d->controls)
            d->controls = own_memory(path);
        d->format = formats[0];
        d->size_index = 0;
        while (!offered(d->format, &sizes[d->size_index]))
            d->size_index++;
        d->interval_num = 1;
        d->interval_den = max_fps;
        d->buffers = NULL;
        d->num_buffers = d->num_queued = d->num_done = 0;
        d->seq = 0;
        pthread_mutex_init(&d->serial, NULL);
        pthread_mutex_init(&d->lock, NULL);
        atomic_store(&d->fd, ends[0]);
        atomic_store(&d->slot, OPEN);
    }
    pthread_mutex_unlock(&slots_lock);
    if (!d) {
        close(ends[0]);
        close(ends[1]);
        return fail(EMFILE);
    }
    return ends[0];
}

// A child between vfork and exec shares our memory: its close must not stop the parent's camera. Hence the owner.
static void close_device(int fd) {
    device *d = find(fd);
    int open_slot = OPEN;
    if (!d || d->owner != getpid() || !atomic_compare_exchange_strong(&d->slot, &open_slot, TAKEN))
        return;
    pthread_mutex_lock(&d->serial);
    free_buffers(d);
    pthread_mutex_unlock(&d->serial);
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    if (d->clock_fd >= 0)
        close(d->clock_fd);
    if (d->write_fd >= 0)
        close(d->write_fd);
    atomic_store(&d->slot, CLOSED);
    free_slot_if_unused(d);
}

// ---------------------------------------------------------------------------------------------------------------------
// ioctls
// ---------------------------------------------------------------------------------------------------------------------

static const format *find_format(uint32_t fourcc) {
    for (int i = 0; i < num_formats; i++)
        if (formats[i]->fourcc == fourcc)
            return formats[i];
    return NULL;
}

static int query_capabilities(device *d, struct v4l2_capability *c) {
    memset(c, 0, sizeof *c);
    snprintf((char *)c->driver, sizeof c->driver, "fakev4l2");
    snprintf((char *)c->card, sizeof c->card, "Fake Camera");
    snprintf((char *)c->bus_info, sizeof c->bus_info, "platform:fake-%.16s", strrchr(d->path, '/') + 1);
    c->version = 0x60100;
    c->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING | V4L2_CAP_EXT_PIX_FORMAT;
    c->capabilities = c->device_caps | V4L2_CAP_DEVICE_CAPS;
    return 0;
}

static int enumerate_formats(struct v4l2_fmtdesc *f) {
    if (f->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || f->index >= (unsigned)num_formats)
        return fail(EINVAL);
    const format *of = formats[f->index];
    f->flags = compressed(of) ? V4L2_FMT_FLAG_COMPRESSED : 0;
    f->pixelformat = of->fourcc;
    snprintf((char *)f->description, sizeof f->description, "%s", of->name);
    return 0;
}

static int enumerate_sizes(struct v4l2_frmsizeenum *f) {
    const format *of = find_format(f->pixel_format);
    unsigned index = f->index;
    for (int i = 0; of && i < num_sizes; i++) {
        if (!offered(of, &sizes[i]) || index-- != 0)
            continue;
        f->type = V4L2_FRMSIZE_TYPE_DISCRETE;
        f->discrete.width = sizes[i].width;
        f->discrete.height = sizes[i].height;
        return 0;
    }
    return fail(EINVAL);
}

static int enumerate_intervals(struct v4l2_frmivalenum *f) {
    const format *of = find_format(f->pixel_format);
    for (int i = 0; of && f->index < 3 && i < num_sizes; i++) {
        if (sizes[i].width != f->width || sizes[i].height != f->height || !offered(of, &sizes[i]))
            continue;
        f->type = V4L2_FRMIVAL_TYPE_DISCRETE;  // the full rate, a half and a third of it
        f->discrete.numerator = f->index + 1;
        f->discrete.denominator = max_fps;
        return 0;
    }
    return fail(EINVAL);
}

static int nearest_size(const format *f, unsigned width, unsigned height) {
    int best = -1;
    long best_distance = 0;
    for (int i = 0; i < num_sizes; i++) {
        long distance = labs((long)sizes[i].width * sizes[i].height - (long)width * height);
        if (offered(f, &sizes[i]) && (best < 0 || distance < best_distance)) {
            best = i;
            best_distance = distance;
        }
    }
    return best;
}

// What is not offered is replaced by the nearest that is, without an error: the V4L2 rule.
static int exchange_format(device *d, unsigned request, struct v4l2_format *f) {
    struct v4l2_pix_format *p = &f->fmt.pix;
    const format *chosen = d->format;
    int size_index = d->size_index;
    if (f->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
        return fail(EINVAL);
    if (request != VIDIOC_G_FMT) {
        chosen = find_format(p->pixelformat);
        if (!chosen)
            chosen = formats[0];
        size_index = nearest_size(chosen, p->width, p->height);
    }
    if (request == VIDIOC_S_FMT) {
        if (d->num_buffers || fault("FAKEV4L2_BUSY"))
            return fail(EBUSY);
        if (flock(d->lock_fd, LOCK_EX | LOCK_NB) != 0)  // another opening has buffers
            return fail(EBUSY);
        flock(d->lock_fd, LOCK_UN);
        d->format = chosen;
        d->size_index = size_index;
    }
    memset(p, 0, sizeof *p);
    p->width = sizes[size_index].width;
    p->height = sizes[size_index].height;
    p->pixelformat = chosen->fourcc;
    p->field = V4L2_FIELD_NONE;
    p->bytesperline = p->width * chosen->line_bytes;
    p->sizeimage = (uint32_t)picture_bytes(chosen, p->width, p->height);
    p->colorspace = V4L2_COLORSPACE_SRGB;
    return 0;
}

static int exchange_rate(device *d, unsigned request, struct v4l2_streamparm *p) {
    struct v4l2_captureparm *c = &p->parm.capture;
    struct v4l2_fract wanted = c->timeperframe;
    if (p->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
        return fail(EINVAL);
    if (getenv("FAKEV4L2_NORATE")) {
        memset(c, 0, sizeof *c);
        return 0;
    }
    if (request == VIDIOC_S_PARM) {
        int given = wanted.numerator && wanted.denominator;
        int slower = given && wanted.denominator < (uint64_t)max_fps * wanted.numerator;
        d->interval_num = slower ? wanted.numerator : 1;
        d->interval_den = slower ? wanted.denominator : max_fps;
    }
    memset(c, 0, sizeof *c);
    c->capability = V4L2_CAP_TIMEPERFRAME;
    c->timeperframe.numerator = d->interval_num;
    c->timeperframe.denominator = d->interval_den;
    c->readbuffers = 4;
    return 0;
}

static int request_buffers(device *d, struct v4l2_requestbuffers *r) {
    if (r->memory != V4L2_MEMORY_MMAP || r->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
        return fail(EINVAL);
    if (atomic_load(&d->streaming))
        return fail(EBUSY);
    free_buffers(d);
    r->capabilities = V4L2_BUF_CAP_SUPPORTS_MMAP;
    if (r->count == 0)
        return 0;
    if (fault("FAKEV4L2_BUSY") || flock(d->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return fail(EBUSY);
    if (r->count > MAX_BUFFERS)
        r->count = MAX_BUFFERS;
    if (r->count < 2)
        r->count = 2;
    const size_set *s = &sizes[d->size_index];
    d->pictures = compressed(d->format) ? NULL : raw_pictures(d->size_index, d->format);
    if (!compressed(d->format) && !d->pictures)
        return fail(ENOMEM);
    d->buffer_bytes = (picture_bytes(d->format, s->width, s->height) + 4095) & ~(size_t)4095;
    d->memory_fd = memfd_create("fakev4l2", MFD_CLOEXEC);
    size_t total = d->buffer_bytes * r->count;
    if (d->memory_fd < 0 || ftruncate(d->memory_fd, (off_t)total) != 0)
        return fail(ENOMEM);
    void *mapped = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED, d->memory_fd, 0);
    if (mapped == MAP_FAILED)
        return fail(ENOMEM);
    pthread_mutex_lock(&d->lock);
    memset(d->meta, 0, sizeof d->meta);
    memset(d->states, 0, sizeof d->states);
    d->buffers = mapped;
    d->num_buffers = (int)r->count;
    pthread_mutex_unlock(&d->lock);
    return 0;
}

static void describe_buffer(device *d, int i, struct v4l2_buffer *b) {
    uint32_t state = d->states[i] == QUEUED ? V4L2_BUF_FLAG_QUEUED : d->states[i] == DONE ? V4L2_BUF_FLAG_DONE : 0;
    struct v4l2_buffer *m = &d->meta[i];
    m->index = (uint32_t)i;
    m->type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    m->memory = V4L2_MEMORY_MMAP;
    m->length = (uint32_t)d->buffer_bytes;
    m->m.offset = (uint32_t)((size_t)i * d->buffer_bytes);
    m->field = V4L2_FIELD_NONE;
    m->flags = (m->flags & V4L2_BUF_FLAG_ERROR) | V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC | V4L2_BUF_FLAG_MAPPED | state;
    *b = *m;
}

static int query_or_queue(device *d, unsigned request, struct v4l2_buffer *b) {
    int result = 0;
    pthread_mutex_lock(&d->lock);
    if (b->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || b->index >= (unsigned)d->num_buffers) {
        result = fail(EINVAL);
    } else {
        int i = (int)b->index;
        if (request == VIDIOC_QBUF && (d->states[i] != IDLE || b->memory != V4L2_MEMORY_MMAP)) {
            result = fail(EINVAL);
        } else {
            if (request == VIDIOC_QBUF) {
                d->queued[d->num_queued++] = i;
                d->states[i] = QUEUED;
                d->meta[i].flags = 0;
            }
            describe_buffer(d, i, b);
        }
    }
    pthread_mutex_unlock(&d->lock);
    return result;
}

// 1 with the oldest filled buffer in b, or 0 when there is none.
static int take_filled(device *d, struct v4l2_buffer *b) {
    int taken = 0;
    char token;
    pthread_mutex_lock(&d->lock);
    // A filled buffer has its byte in the pipe: this read never blocks.
    if (d->num_done > 0 && read(d->fd, &token, 1) == 1) {
        int i = d->done[0];
        memmove(d->done, d->done + 1, (size_t)--d->num_done * sizeof *d->done);
        d->states[i] = IDLE;
        describe_buffer(d, i, b);
        taken = 1;
    }
    pthread_mutex_unlock(&d->lock);
    return taken;
}

static int dequeue(device *d, struct v4l2_buffer *b) {
    if (b->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
        return fail(EINVAL);
    for (;;) {
        hang_if_told();
        if (unplugged(d))
            return fail(ENODEV);
        if (!atomic_load(&d->streaming) || atomic_load(&d->slot) != OPEN)
            return fail(EINVAL);
        if (take_filled(d, b))
            return 0;
        if (fcntl(d->fd, F_GETFL) & O_NONBLOCK)
            return fail(EAGAIN);
        struct pollfd ready = {.fd = d->fd, .events = POLLIN};
        if (poll(&ready, 1, 50) < 0)  // 50 ms: how late STREAMOFF from another thread is noticed
            return -1;
    }
}

static int export_buffer(device *d, struct v4l2_exportbuffer *x) {
    if (x->type != V4L2_BUF_TYPE_VIDEO_CAPTURE || x->index >= (unsigned)d->num_buffers)
        return fail(EINVAL);
    // Not quite a dmabuf: the buffer lies at index * length in what this descriptor maps, not at 0.
    x->fd = fcntl(d->memory_fd, F_DUPFD_CLOEXEC, 3);
    return x->fd < 0 ? -1 : 0;
}

static int start(device *d) {
    if (d->num_buffers == 0)
        return fail(EINVAL);
    if (fault("FAKEV4L2_BUSY"))
        return fail(EBUSY);
    if (atomic_exchange(&d->streaming, 1))
        return 0;
    int error = pthread_create(&d->producer, NULL, run_producer, d);
    if (error) {
        atomic_store(&d->streaming, 0);
        return fail(error);
    }
    return 0;
}

static int enumerate_inputs(struct v4l2_input *n) {
    if (n->index != 0)
        return fail(EINVAL);
    memset(n, 0, sizeof *n);
    snprintf((char *)n->name, sizeof n->name, "Camera 1");
    n->type = V4L2_INPUT_TYPE_CAMERA;
    return 0;
}

static int query_menu(struct v4l2_querymenu *m) {
    const char *item = menu_item(m->id, m->index);
    if (!item)
        return fail(EINVAL);
    snprintf((char *)m->name, sizeof m->name, "%s", item);
    m->reserved = 0;
    return 0;
}

static int get_control(const memory *m, struct v4l2_control *c) {
    int i = find_control(c->id);
    if (i < 0)
        return fail(EINVAL);
    c->value = m->values[i];
    return 0;
}

static int set_control(memory *m, struct v4l2_control *c) {
    struct v4l2_ext_control one = {.id = c->id, .value = c->value};
    unsigned error_at;
    if (set_controls(m, &one, 1, 1, &error_at) != 0)
        return -1;
    c->value = one.value;
    return 0;
}

static int answer_serially(device *d, unsigned request, void *argument) {
    uint32_t *number = argument;
    struct v4l2_ext_controls *several = argument;
    switch (request) {
    case VIDIOC_QUERYCAP:
        return query_capabilities(d, argument);
    case VIDIOC_ENUM_FMT:
        return enumerate_formats(argument);
    case VIDIOC_ENUM_FRAMESIZES:
        return enumerate_sizes(argument);
    case VIDIOC_ENUM_FRAMEINTERVALS:
        return enumerate_intervals(argument);
    case VIDIOC_G_FMT:
    case VIDIOC_TRY_FMT:
    case VIDIOC_S_FMT:
        return exchange_format(d, request, argument);
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM:
        return exchange_rate(d, request, argument);
    case VIDIOC_REQBUFS:
        return request_buffers(d, argument);
    case VIDIOC_EXPBUF:
        return export_buffer(d, argument);
    case VIDIOC_STREAMON:
        return start(d);
    case VIDIOC_STREAMOFF:
        stop(d);
        return 0;
    case VIDIOC_ENUMINPUT:
        return enumerate_inputs(argument);
    case VIDIOC_G_INPUT:
        *number = 0;
        return 0;
    case VIDIOC_S_INPUT:
        return *number ? fail(EINVAL) : 0;
    case VIDIOC_G_PRIORITY:
        *number = V4L2_PRIORITY_DEFAULT;
        return 0;
    case VIDIOC_QUERYCTRL:
        return query_control(d->controls, argument);
    case VIDIOC_QUERY_EXT_CTRL:
        return query_extended(d->controls, argument);
    case VIDIOC_QUERYMENU:
        return query_menu(argument);
    case VIDIOC_G_CTRL:
        return get_control(d->controls, argument);
    case VIDIOC_S_CTRL:
        return set_control(d->controls, argument);
    case VIDIOC_G_EXT_CTRLS:
        return get_controls(d->controls, several);
    case VIDIOC_S_EXT_CTRLS:
    case VIDIOC_TRY_EXT_CTRLS:
        return set_controls(d->controls, several->controls, several->count, request == VIDIOC_S_EXT_CTRLS,
                            &several->error_idx);
    default:
        if (log_unknown)
            fprintf(stderr, "fakev4l2: ioctl %08x -> ENOTTY\n", request);
        return fail(ENOTTY);
    }
}

static int answer(device *d, unsigned request, void *argument) {
    if (request == VIDIOC_DQBUF)
        return dequeue(d, argument);
    if (unplugged(d))
        return fail(ENODEV);
    if (request == VIDIOC_QBUF || request == VIDIOC_QUERYBUF)
        return query_or_queue(d, request, argument);
    pthread_mutex_lock(&d->serial);
    int result = answer_serially(d, request, argument);
    pthread_mutex_unlock(&d->serial);
    return result;
}

// ---------------------------------------------------------------------------------------------------------------------
// The C library's functions, replaced
// ---------------------------------------------------------------------------------------------------------------------

static mode_t mode_argument(int flags, va_list arguments) {
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

#define OPEN_FUNCTION(name)                                \
    int name(const char *path, int flags, ...) {           \
        va_list arguments;                                 \
        va_start(arguments, flags);                        \
        mode_t mode = mode_argument(flags, arguments);     \
        va_end(arguments);                                 \
        if (ours(path))                                    \
            return open_device(path, flags);               \
        REAL(name, int, const char *, int, ...);           \
        return real(path, flags, mode);                    \
    }
OPEN_FUNCTION(open)
OPEN_FUNCTION(open64)

#define OPENAT_FUNCTION(name)                              \
    int name(int at, const char *path, int flags, ...) {   \
        va_list arguments;                                 \
        va_start(arguments, flags);                        \
        mode_t mode = mode_argument(flags, arguments);     \
        va_end(arguments);                                 \
        if (ours(path))                                    \
            return open_device(path, flags);               \
        REAL(name, int, int, const char *, int, ...);      \
        return real(at, path, flags, mode);                \
    }
OPENAT_FUNCTION(openat)
OPENAT_FUNCTION(openat64)

// What open() becomes in programs compiled with _FORTIFY_SOURCE.
#define CHECKED_OPEN_FUNCTION(name)                        \
    int name(const char *path, int flags);                 \
    int name(const char *path, int flags) {                \
        if (ours(path))                                    \
            return open_device(path, flags);               \
        REAL(name, int, const char *, int);                \
        return real(path, flags);                          \
    }
CHECKED_OPEN_FUNCTION(__open_2)
CHECKED_OPEN_FUNCTION(__open64_2)

int close(int fd) {
    REAL(close, int, int);
    close_device(fd);
    return real(fd);
}

int ioctl(int fd, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if ((request >> 8 & 0xff) == 'V') {
        device *d = acquire(fd);
        if (d) {
            int result = answer(d, (unsigned)request, argument);
            int error = errno;
            release(d);
            errno = error;
            return result;
        }
    }
    REAL(ioctl, int, int, unsigned long, ...);
    return real(fd, request, argument);
}

#define MMAP_FUNCTION(name, offset_type)                                                             \
    void *name(void *address, size_t length, int access, int flags, int fd, offset_type offset) {    \
        device *d = find(fd);                                                                        \
        REAL(name, void *, void *, size_t, int, int, int, offset_type);                              \
        return real(address, length, access, flags, d ? d->memory_fd : fd, offset);                  \
    }
MMAP_FUNCTION(mmap, off_t)
MMAP_FUNCTION(mmap64, off64_t)

static int may_access(int mode) {
    if (fault("FAKEV4L2_GONE"))
        return fail(ENOENT);
    return mode != F_OK && fault("FAKEV4L2_DENIED") ? fail(EACCES) : 0;
}

int access(const char *path, int mode) {
    if (ours(path))
        return may_access(mode);
    REAL(access, int, const char *, int);
    return real(path, mode);
}

int faccessat(int at, const char *path, int mode, int flags) {
    if (ours(path))
        return may_access(mode);
    REAL(faccessat, int, int, const char *, int, int);
    return real(at, path, mode, flags);
}

static int device_status(struct stat *s, const char *path) {
    if (fault("FAKEV4L2_GONE"))
        return fail(ENOENT);
    memset(s, 0, sizeof *s);
    s->st_mode = S_IFCHR | 0660;
    s->st_rdev = makedev(81, (unsigned)atoi(path + strcspn(path, "0123456789")));
    s->st_nlink = 1;
    return 0;
}

#define STAT_FUNCTION(name, type)                                          \
    int name(const char *path, struct type *status) {                      \
        if (ours(path))                                                    \
            return device_status((struct stat *)status, path);             \
        REAL(name, int, const char *, struct type *);                      \
        return real(path, status);                                         \
    }
STAT_FUNCTION(stat, stat)
STAT_FUNCTION(lstat, stat)
STAT_FUNCTION(stat64, stat64)
STAT_FUNCTION(lstat64, stat64)

#define FSTATAT_FUNCTION(name, type)                                       \
    int name(int at, const char *path, struct type *status, int flags) {   \
        if (ours(path))                                                    \
            return device_status((struct stat *)status, path);             \
        REAL(name, int, int, const char *, struct type *, int);            \
        return real(at, path, status, flags);                              \
    }
FSTATAT_FUNCTION(fstatat, stat)
FSTATAT_FUNCTION(fstatat64, stat64)

#define FSTAT_FUNCTION(name, type)                                         \
    int name(int fd, struct type *status) {                                \
        device *d = find(fd);                                              \
        if (d)                                                             \
            return device_status((struct stat *)status, d->path);          \
        REAL(name, int, int, struct type *);                               \
        return real(fd, status);                                           \
    }
FSTAT_FUNCTION(fstat, stat)
FSTAT_FUNCTION(fstat64, stat64)

char *realpath(const char *path, char *resolved) {
    if (ours(path)) {
        if (fault("FAKEV4L2_GONE")) {
            errno = ENOENT;
            return NULL;
        }
        return resolved ? strcpy(resolved, path) : strdup(path);
    }
    REAL(realpath, char *, const char *, char *);
    return real(path, resolved);
}

// libv4l2 makes its system calls itself, past the functions above; its own entry points are therefore replaced too.
int v4l2_open(const char *path, int flags, ...);
int v4l2_close(int fd);
int v4l2_ioctl(int fd, unsigned long request, ...);
void *v4l2_mmap(void *address, size_t length, int access, int flags, int fd, int64_t offset);
int v4l2_munmap(void *address, size_t length);

int v4l2_open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_argument(flags, arguments);
    va_end(arguments);
    if (ours(path))
        return open_device(path, flags);
    REAL(v4l2_open, int, const char *, int, ...);
    return real ? real(path, flags, mode) : fail(ENOENT);
}

int v4l2_close(int fd) {
    if (find(fd))
        return close(fd);
    REAL(v4l2_close, int, int);
    return real ? real(fd) : fail(EBADF);
}

int v4l2_ioctl(int fd, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (find(fd))
        return ioctl(fd, request, argument);
    REAL(v4l2_ioctl, int, int, unsigned long, ...);
    return real ? real(fd, request, argument) : fail(EBADF);
}

void *v4l2_mmap(void *address, size_t length, int access, int flags, int fd, int64_t offset) {
    if (find(fd))
        return mmap(address, length, access, flags, fd, offset);
    REAL(v4l2_mmap, void *, void *, size_t, int, int, int, int64_t);
    return real ? real(address, length, access, flags, fd, offset) : MAP_FAILED;
}

int v4l2_munmap(void *address, size_t length) {
    return munmap(address, length);
}
