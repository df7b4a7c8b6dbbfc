// floor: the least that a server of MJPEG can spend on TCP: one thread, one write() for each viewer and picture.
//
//   gcc -O2 -o floor floor.c
//   floor PORT FOLDER FPS        the pictures are FOLDER/SIZE/*.jpg, as for fakev4l2.c
//
// No camera, no HTTP to speak of, no copy of a picture, no look at a viewer's queue: what it costs is the kernel's. It is
// no server for anybody; beside it one reads how much of a real one's figure is the machine's. GET /stream streams the
// pictures, each with a COM segment 'FV4L' (number, monotonic time) behind its SOI as fakev4l2.c writes it; any other
// path answers 200. A viewer without room finishes its picture before it gets another.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_VIEWERS = 4000, MAX_PICTURES = 64, MARK_BYTES = 24, RING = 8 };

typedef struct {
    int descriptor, ring;  // ring: the part that it is given, while `left` bytes of it wait
    size_t left;
} viewer;

typedef struct {
    char *bytes;
    size_t length, room;
    int users;  // viewers that have not taken it whole
} part;

static char *pictures[MAX_PICTURES];
static size_t lengths[MAX_PICTURES];
static int known;
static viewer viewers[MAX_VIEWERS];
static int count;
static part ring[RING];

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void end(const char *what) {
    perror(what);
    exit(1);
}

static void *room_for(size_t bytes) {
    void *room = malloc(bytes);
    if (!room)
        end("memory");
    return room;
}

static void load(const char *folder) {
    char pattern[4096];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/*/*.jpg", folder);
    if (glob(pattern, 0, NULL, &found) != 0) {
        fprintf(stderr, "floor: no pictures: %s\n", pattern);
        exit(1);
    }
    for (size_t i = 0; i < found.gl_pathc && known < MAX_PICTURES; i++) {
        FILE *file = fopen(found.gl_pathv[i], "rb");
        if (!file || fseek(file, 0, SEEK_END) != 0)
            end(found.gl_pathv[i]);
        lengths[known] = (size_t)ftell(file);
        pictures[known] = room_for(lengths[known]);
        rewind(file);
        if (fread(pictures[known], 1, lengths[known], file) != lengths[known])
            end(found.gl_pathv[i]);
        fclose(file);
        known++;
    }
    globfree(&found);
}

// The next part into a place of the ring that nobody reads any more; NULL when slow viewers hold all of them.
static part *build(uint64_t number) {
    part *made = NULL;
    for (int i = 0; i < RING && !made; i++)
        if (ring[i].users == 0)
            made = &ring[i];
    if (!made)
        return NULL;
    const char *jpeg = pictures[number % (uint64_t)known];
    size_t bytes = lengths[number % (uint64_t)known];
    uint64_t captured = now_ns();
    if (made->room < bytes + 256) {
        free(made->bytes);
        made->room = bytes + 256;
        made->bytes = room_for(made->room);
    }
    char *out = made->bytes;
    out += sprintf(out, "Content-Type: image/jpeg\r\nContent-Length: %zu\r\n\r\n", bytes + MARK_BYTES);
    memcpy(out, "\xff\xd8\xff\xfe\x00\x16" "FV4L", 10);
    memcpy(out + 10, &number, 8);
    memcpy(out + 18, &captured, 8);
    memcpy(out + 26, jpeg + 2, bytes - 2);
    out += bytes + MARK_BYTES;
    memcpy(out, "\r\n--floor\r\n", 11);
    made->length = (size_t)(out + 11 - made->bytes);
    return made;
}

static void leave(int i) {
    if (viewers[i].left)
        ring[viewers[i].ring].users--;
    close(viewers[i].descriptor);
    viewers[i] = viewers[--count];
}

// False when it has left.
static int push(int i) {
    viewer *v = &viewers[i];
    part *p = &ring[v->ring];
    ssize_t wrote = write(v->descriptor, p->bytes + p->length - v->left, v->left);
    if (wrote < 0) {
        if (errno == EAGAIN)
            return 1;
        leave(i);
        return 0;
    }
    v->left -= (size_t)wrote;
    if (v->left == 0)
        p->users--;
    return 1;
}

static void answer(int descriptor) {
    static const char small[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
    static const char head[] = "HTTP/1.1 200 OK\r\nConnection: close\r\n"
                               "Content-Type: multipart/x-mixed-replace;boundary=floor\r\n\r\n--floor\r\n";
    char request[4096] = "";
    int on = 1;
    if (read(descriptor, request, sizeof request - 1) > 0 && !strncmp(request, "GET /stream", 11)) {
        if (count < MAX_VIEWERS && write(descriptor, head, sizeof head - 1) > 0) {
            fcntl(descriptor, F_SETFL, O_NONBLOCK);
            setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            viewers[count++] = (viewer){descriptor, 0, 0};
            return;
        }
    } else if (write(descriptor, small, sizeof small - 1) < 0) {
        perror("write");
    }
    close(descriptor);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: floor PORT FOLDER FPS\n");
        return 2;
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    uint64_t period = 1000000000u / (uint64_t)atoi(argv[3]), next, number = 0;
    signal(SIGPIPE, SIG_IGN);
    load(argv[2]);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 1024) != 0)
        end("listen");
    for (next = now_ns() + period;;) {
        uint64_t t = now_ns();
        int waiting = 0;
        for (int i = count - 1; i >= 0; i--)
            if (viewers[i].left)
                waiting += push(i) && viewers[i].left;
        if (t >= next) {
            part *p = build(number++);
            next += period * ((t - next) / period + 1);
            for (int i = count - 1; p && i >= 0; i--) {
                if (viewers[i].left)
                    continue;
                viewers[i].ring = (int)(p - ring);
                viewers[i].left = p->length;
                p->users++;
                push(i);
            }
            continue;
        }
        struct pollfd door = {listener, POLLIN, 0};
        uint64_t pause = waiting && next - t > 1000000 ? 1000000 : next - t;
        struct timespec limit = {0, (long)pause};
        if (ppoll(&door, 1, &limit, NULL) > 0) {
            int descriptor = accept(listener, NULL, NULL);
            if (descriptor >= 0)
                answer(descriptor);
        }
    }
}
