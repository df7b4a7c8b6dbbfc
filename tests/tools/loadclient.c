// loadclient: many MJPEG viewers in one cheap process, so that what is measured is the server.
//
//   gcc -O2 -o loadclient loadclient.c -lpthread
//   loadclient -u HOST:PORT/PATH [options]           HOST is an IPv4 address
//
//   -n N        viewers (default 1)
//   -w SECONDS  from the last connection to the start of the measuring window (default 2)
//   -t SECONDS  the window (default 8)
//   -p PID      report CPU time and memory of this process and its descendants over the window
//   -s N        the first N of the viewers are slow ones: without -r they never read at all
//   -r BYTES    the slow viewers read this many bytes per second
//   -g PATH     on one more, keep-alive connection: GET PATH every 20 ms during the window
//   -k          check: read every picture whole and look at its first and last two bytes and at its number
//   -A HEADERS  further request headers, each ending in CR LF
//   -L LABEL    copied to the result
//
// One JSON object on stdout. One thread and epoll for the viewers; pictures are dropped in the kernel (MSG_TRUNC) but
// for their first bytes, so that a client costs next to nothing. The multipart stream is cut by Content-Length, by a
// search for the boundary where there is none; chunked transfer coding is understood. A COM segment 'FV4L' behind the
// SOI (see fakev4l2.c) gives a picture's number and capture time on this machine's monotonic clock. Latency and age are
// measured when the picture is complete. A server's placeholder without such a segment counts as a picture, not for
// latency.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_VIEWERS = 4000,
    HEAD_BYTES = 4096,
    MARK_BYTES = 26,  // SOI and the COM segment with number and time
    OPEN_EVERY_NS = 2000000,  // at most 500 connections a second: a server's backlog is not what is measured
    GET_EVERY_NS = 20000000,
    SLOW_TICK_MS = 2,
    SLOW_RECEIVE_BUFFER = 8192,
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double unix_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// ---------------------------------------------------------------------------------------------------------------------
// Samples
// ---------------------------------------------------------------------------------------------------------------------

typedef struct {
    float *values;
    size_t count, room;
} samples;

static void add(samples *s, double value) {
    if (s->count == s->room) {
        s->room = s->room ? s->room * 2 : 65536;
        s->values = realloc(s->values, s->room * sizeof *s->values);
        if (!s->values) {
            fprintf(stderr, "loadclient: out of memory\n");
            exit(1);
        }
    }
    s->values[s->count++] = (float)value;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static void sort(samples *s) {
    if (s->count)
        qsort(s->values, s->count, sizeof *s->values, by_value);
}

// Of sorted samples; -1 when there are none.
static double percentile(const samples *s, double fraction) {
    return s->count ? (double)s->values[(size_t)(fraction * (double)(s->count - 1))] : -1;
}

// ---------------------------------------------------------------------------------------------------------------------
// CPU time and memory of a process and its descendants
// ---------------------------------------------------------------------------------------------------------------------

typedef struct {
    double cpu_s, rss_mb, high_mb;
    int threads;
} usage;

static void add_tree(int pid, usage *u);

static void add_status(int pid, usage *u) {
    char text[256];
    long value;
    snprintf(text, sizeof text, "/proc/%d/status", pid);
    FILE *f = fopen(text, "r");
    while (f && fgets(text, sizeof text, f)) {
        if (sscanf(text, "VmRSS: %ld", &value) == 1)
            u->rss_mb += (double)value / 1024.0;
        if (sscanf(text, "VmHWM: %ld", &value) == 1)
            u->high_mb += (double)value / 1024.0;
        if (sscanf(text, "Threads: %ld", &value) == 1)
            u->threads += (int)value;
    }
    if (f)
        fclose(f);
}

// User and system time in clock ticks of 10 ms: for kernels without schedstat.
static double coarse_cpu_s(int pid) {
    char text[1024];
    unsigned long user = 0, system = 0;
    snprintf(text, sizeof text, "/proc/%d/stat", pid);
    FILE *f = fopen(text, "r");
    if (!f)
        return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    const char *behind_name = strrchr(text, ')');
    if (behind_name)
        sscanf(behind_name + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static double add_task(int pid, const char *task, usage *u) {
    char path[512];
    unsigned long long ns = 0;
    int child;
    snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", pid, task);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%llu", &ns) != 1)
        ns = 0;
    if (f)
        fclose(f);
    snprintf(path, sizeof path, "/proc/%d/task/%.20s/children", pid, task);
    f = fopen(path, "r");
    while (f && fscanf(f, "%d", &child) == 1)
        add_tree(child, u);
    if (f)
        fclose(f);
    return (double)ns / 1e9;
}

// A thread that ended within the window takes its time with it: both sums are over the threads that live.
static void add_tree(int pid, usage *u) {
    char path[64];
    double fine = 0;
    struct dirent *entry;
    add_status(pid, u);
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    while (tasks && (entry = readdir(tasks)))
        if (isdigit((unsigned char)entry->d_name[0]))
            fine += add_task(pid, entry->d_name, u);
    if (tasks)
        closedir(tasks);
    u->cpu_s += fine > 0 ? fine : coarse_cpu_s(pid);
}

static double own_cpu_s(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

// ---------------------------------------------------------------------------------------------------------------------
// One viewer: the stream taken apart
// ---------------------------------------------------------------------------------------------------------------------

enum part { RESPONSE_HEAD, PART_HEAD, BODY, UNSIZED_BODY };
enum coding { PLAIN, CHUNK_SIZE, CHUNK_DATA };

typedef struct {
    int fd, slow, closed;
    enum part in;
    enum coding coding;
    uint64_t chunk_left;
    char size_line[20];
    int size_line_bytes;
    char head[HEAD_BYTES];
    int head_bytes;
    int64_t body_left;
    unsigned char mark[MARK_BYTES];
    int mark_bytes;
    uint64_t tail;  // the last eight bytes of the body, the newest lowest
    double timestamp;  // X-Timestamp of the part
    uint64_t connected, first, last, last_seq;
    uint64_t frames, bytes, distinct, repeated;
    double allowance;  // of a slow viewer: bytes it may read now
} viewer;

static struct {
    samples interval_ms, latency_ms, timestamp_ms, slow_age_ms, slow_interval_ms, first_ms;
    uint64_t skipped, ended, malformed, disorder, broken;
} seen;

static int measuring;
static int checking;

static void check_picture(const viewer *v, int has_mark, uint64_t seq) {
    int starts = v->mark_bytes >= 2 && v->mark[0] == 0xff && v->mark[1] == 0xd8;
    int ends = (v->tail & 0xffff) == 0xffd9;
    if (!starts || (checking && !ends))
        seen.broken++;
    if (has_mark && v->last_seq && seq < v->last_seq)
        seen.disorder++;
}

static void count_picture(viewer *v, uint64_t t, int has_mark, uint64_t seq, uint64_t captured) {
    double age_ms = (double)(int64_t)(t - captured) / 1e6;
    v->frames++;
    if (has_mark && seq == v->last_seq)
        v->repeated++;
    else
        v->distinct++;
    if (v->slow) {
        if (has_mark)
            add(&seen.slow_age_ms, age_ms);
        if (v->last)
            add(&seen.slow_interval_ms, (double)(t - v->last) / 1e6);
        return;
    }
    if (has_mark)
        add(&seen.latency_ms, age_ms);
    if (has_mark && v->last_seq && seq > v->last_seq + 1)
        seen.skipped += seq - v->last_seq - 1;
    if (v->last)
        add(&seen.interval_ms, (double)(t - v->last) / 1e6);
    if (v->timestamp > 0)
        add(&seen.timestamp_ms, (unix_seconds() - v->timestamp) * 1e3);
}

static void picture_done(viewer *v) {
    uint64_t t = now_ns(), seq = 0, captured = 0;
    int has_mark = v->mark_bytes == MARK_BYTES && memcmp(v->mark + 6, "FV4L", 4) == 0;
    if (has_mark) {
        memcpy(&seq, v->mark + 10, 8);
        memcpy(&captured, v->mark + 18, 8);
    }
    check_picture(v, has_mark, seq);
    if (measuring)
        count_picture(v, t, has_mark, seq, captured);
    if (!v->first)
        v->first = t;
    v->last = t;
    if (has_mark)
        v->last_seq = seq;
    v->mark_bytes = 0;
    v->in = PART_HEAD;
    v->head_bytes = 0;
}

static const char *header(const char *head, const char *name) {
    const char *found = strcasestr(head, name);
    return found ? found + strlen(name) : NULL;
}

static void response_head_done(viewer *v) {
    if (strncmp(v->head, "HTTP/1.", 7) != 0 || strncmp(v->head + 9, "200", 3) != 0)
        seen.malformed++;
    if (header(v->head, "\ntransfer-encoding: chunked"))
        v->coding = CHUNK_SIZE;
    v->in = PART_HEAD;
}

static void part_head_done(viewer *v) {
    if (v->head_bytes == 4)  // an empty line, not a head
        return;
    const char *length = header(v->head, "\ncontent-length:");
    const char *timestamp = header(v->head, "\nx-timestamp:");
    v->timestamp = timestamp ? atof(timestamp) : 0;
    v->body_left = length ? atoll(length) : 0;
    v->mark_bytes = 0;
    v->tail = 0;
    v->in = !length ? UNSIZED_BODY : v->body_left > 0 ? BODY : PART_HEAD;
    if (length && v->body_left <= 0)
        seen.malformed++;
}

static void eat_head_byte(viewer *v, unsigned char byte) {
    if (v->head_bytes == HEAD_BYTES - 1) {
        seen.malformed++;
        v->head_bytes = 0;
    }
    v->head[v->head_bytes++] = (char)byte;
    if (v->head_bytes < 4 || memcmp(v->head + v->head_bytes - 4, "\r\n\r\n", 4) != 0)
        return;
    v->head[v->head_bytes] = '\0';
    if (v->in == RESPONSE_HEAD)
        response_head_done(v);
    else
        part_head_done(v);
    v->head_bytes = 0;
}

// A part without a length ends where the next boundary begins: CR LF - -
static void eat_unsized_byte(viewer *v, unsigned char byte) {
    if (v->mark_bytes < MARK_BYTES)
        v->mark[v->mark_bytes++] = byte;
    v->tail = v->tail << 8 | byte;
    if ((v->tail & 0xffffffff) == 0x0d0a2d2d) {
        v->tail >>= 32;
        picture_done(v);
    }
}

static size_t eat_body(viewer *v, const unsigned char *data, size_t n) {
    if ((int64_t)n > v->body_left)
        n = (size_t)v->body_left;
    for (size_t i = 0; i < n && v->mark_bytes < MARK_BYTES; i++)
        v->mark[v->mark_bytes++] = data[i];
    for (size_t i = n > 2 ? n - 2 : 0; i < n; i++)
        v->tail = v->tail << 8 | data[i];
    v->body_left -= (int64_t)n;
    if (v->body_left == 0)
        picture_done(v);
    return n;
}

static size_t eat_content(viewer *v, const unsigned char *data, size_t n) {
    if (v->in == BODY)
        return eat_body(v, data, n);
    if (v->in == UNSIZED_BODY)
        eat_unsized_byte(v, *data);
    else
        eat_head_byte(v, *data);
    return 1;
}

static void eat_size_byte(viewer *v, unsigned char byte) {
    if (byte != '\n') {
        if (v->size_line_bytes < (int)sizeof v->size_line - 1)
            v->size_line[v->size_line_bytes++] = (char)byte;
        return;
    }
    v->size_line[v->size_line_bytes] = '\0';
    if (v->size_line_bytes > 0 && v->size_line[0] != '\r')  // an empty line ends the chunk before
        v->chunk_left = strtoull(v->size_line, NULL, 16);
    v->size_line_bytes = 0;
    if (v->chunk_left > 0)
        v->coding = CHUNK_DATA;
}

static void chunk_used(viewer *v, size_t n) {
    if (v->coding != CHUNK_DATA)
        return;
    v->chunk_left -= n;
    if (v->chunk_left == 0)
        v->coding = CHUNK_SIZE;
}

static void eat(viewer *v, const unsigned char *data, size_t n) {
    while (n > 0) {
        size_t used = 1;
        if (v->coding == CHUNK_SIZE) {
            eat_size_byte(v, *data);
        } else if (v->coding == CHUNK_DATA) {
            used = eat_content(v, data, n < v->chunk_left ? n : (size_t)v->chunk_left);
            chunk_used(v, used);
        } else {
            used = eat_content(v, data, n);
        }
        data += used;
        n -= used;
    }
}

// How many of the next bytes are nothing but the rest of a picture whose number has been read.
static int64_t discardable(const viewer *v) {
    if (checking || v->in != BODY || v->mark_bytes < MARK_BYTES || v->coding == CHUNK_SIZE)
        return 0;
    if (v->coding == CHUNK_DATA && (uint64_t)v->body_left > v->chunk_left)
        return (int64_t)v->chunk_left;
    return v->body_left;
}

static void discarded(viewer *v, size_t n) {
    v->body_left -= (int64_t)n;
    chunk_used(v, n);
    if (v->body_left == 0)
        picture_done(v);
}

static unsigned char buffer[1 << 16];

// At most `most` bytes in one call; what recv() said.
static ssize_t read_some(viewer *v, size_t most) {
    int64_t rest = discardable(v);
    ssize_t got;
    if (rest > 64) {
        size_t want = (size_t)rest < most ? (size_t)rest : most;
        got = recv(v->fd, NULL, want, MSG_TRUNC);
        if (got > 0)
            discarded(v, (size_t)got);
    } else {
        // Little at a time while the rest will be discarded anyway: heads and the first bytes of a picture.
        size_t want = checking || v->in == UNSIZED_BODY ? sizeof buffer : 512;
        got = recv(v->fd, buffer, want < most ? want : most, 0);
        if (got > 0)
            eat(v, buffer, (size_t)got);
    }
    if (got > 0 && measuring)
        v->bytes += (uint64_t)got;
    return got;
}

static void hang_up(viewer *v) {
    seen.ended++;
    v->closed = 1;
    close(v->fd);  // leaves the epoll set by that
}

static int failed(ssize_t got) {
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

static void read_fast(viewer *v) {
    for (int turn = 0; turn < 8; turn++) {  // then the others have their turn
        ssize_t got = read_some(v, 1 << 20);
        if (failed(got))
            hang_up(v);
        if (got <= 0)
            return;
    }
}

static void read_slowly(viewer *v, double bytes_per_s, double elapsed_s) {
    double most = bytes_per_s * 0.05;  // what it did not use for 50 ms is lost, as on a line
    v->allowance += bytes_per_s * elapsed_s;
    if (v->allowance > most)
        v->allowance = most;
    while (!v->closed && v->allowance >= 1) {
        ssize_t got = read_some(v, (size_t)v->allowance);
        if (failed(got))
            hang_up(v);
        if (got <= 0)
            return;
        v->allowance -= (double)got;
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The other requests: a thread, so that what it measures is not this program's own turn-taking
// ---------------------------------------------------------------------------------------------------------------------

static struct {
    const char *path;
    struct sockaddr_in address;
    const char *headers;
    int running, failed;
    samples ms;
    uint64_t errors;
} gets;

static int connect_to(const struct sockaddr_in *address) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int on = 1;
    struct timeval limit = {.tv_sec = 5};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0)
        return fd;
    close(fd);
    return -1;
}

// One request and its whole answer. 1: answered 200. The connection is closed (fd becomes -1) if the server wants that.
static int get_once(int *fd, const char *request, size_t request_bytes) {
    static char answer[1 << 16];
    size_t have = 0;
    if (*fd < 0)
        *fd = connect_to(&gets.address);
    if (*fd < 0 || send(*fd, request, request_bytes, MSG_NOSIGNAL) != (ssize_t)request_bytes)
        goto lost;
    for (;;) {
        ssize_t got = recv(*fd, answer + have, sizeof answer - 1 - have, 0);
        if (got < 0 || (got == 0 && have == 0))
            goto lost;
        have += (size_t)got;
        answer[have] = '\0';
        char *body = strstr(answer, "\r\n\r\n");
        int ended = got == 0 || have == sizeof answer - 1;
        if (!body && ended)
            goto lost;
        if (!body)
            continue;
        body += 4;
        char kept = *body;
        *body = '\0';
        const char *length = header(answer, "\ncontent-length:");
        int chunked = header(answer, "\ntransfer-encoding: chunked") != NULL;
        int closing = header(answer, "\nconnection: close") != NULL || strncmp(answer, "HTTP/1.0", 8) == 0;
        *body = kept;
        int complete = length ? have - (size_t)(body - answer) >= (size_t)atoll(length)
                              : chunked && strstr(body - 2, "\r\n0\r\n\r\n") != NULL;
        if (!complete && !ended)
            continue;
        if (ended || closing) {
            close(*fd);
            *fd = -1;
        }
        return strncmp(answer + 9, "200", 3) == 0;
    }
lost:
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    return 0;
}

static void *run_gets(void *unused) {
    char request[1024];
    int fd = -1;
    (void)unused;
    int n = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s:%d\r\n%s\r\n", gets.path,
                     inet_ntoa(gets.address.sin_addr), ntohs(gets.address.sin_port), gets.headers);
    uint64_t due = now_ns();
    while (__atomic_load_n(&gets.running, __ATOMIC_RELAXED)) {
        struct timespec until = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        uint64_t sent = now_ns();
        if (get_once(&fd, request, (size_t)n))
            add(&gets.ms, (double)(now_ns() - sent) / 1e6);
        else
            gets.errors++;
        due += GET_EVERY_NS;
        if (due < now_ns())  // one that took longer than the pause is followed at once by one more, not by several
            due = now_ns();
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

// ---------------------------------------------------------------------------------------------------------------------
// The run
// ---------------------------------------------------------------------------------------------------------------------

static struct {
    const char *url, *label, *headers, *get_path;
    char host[64], path[256];
    int viewers, slow, port, pid;
    double warm_s, window_s, slow_bytes_per_s;
} wanted = {.label = "", .headers = "", .path = "/", .viewers = 1, .port = 80, .warm_s = 2, .window_s = 8};

static int usage_error(const char *what) {
    fprintf(stderr, "loadclient: %s\n", what);
    return 2;
}

static int read_options(int count, char **values) {
    int option;
    while ((option = getopt(count, values, "u:n:w:t:p:s:r:g:kL:A:")) != -1) {
        switch (option) {
        case 'u': wanted.url = optarg; break;
        case 'n': wanted.viewers = atoi(optarg); break;
        case 'w': wanted.warm_s = atof(optarg); break;
        case 't': wanted.window_s = atof(optarg); break;
        case 'p': wanted.pid = atoi(optarg); break;
        case 's': wanted.slow = atoi(optarg); break;
        case 'r': wanted.slow_bytes_per_s = atof(optarg); break;
        case 'g': wanted.get_path = optarg; break;
        case 'k': checking = 1; break;
        case 'L': wanted.label = optarg; break;
        case 'A': wanted.headers = optarg; break;
        default: return usage_error("the options are in the first lines of loadclient.c");
        }
    }
    if (!wanted.url || sscanf(wanted.url, "%63[^:]:%d%255s", wanted.host, &wanted.port, wanted.path) < 2)
        return usage_error("-u HOST:PORT/PATH is needed");
    if (wanted.viewers < 1 || wanted.viewers > MAX_VIEWERS || wanted.slow < 0 || wanted.slow > wanted.viewers)
        return usage_error("-n: 1 to 4000, -s: at most as many");
    if (inet_pton(AF_INET, wanted.host, &gets.address.sin_addr) != 1)
        return usage_error("HOST must be an IPv4 address");
    return 0;
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int open_viewer(viewer *v, int slow, int poller, uint32_t index, const char *request, size_t request_bytes) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    v->slow = slow;
    v->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (slow) {
        int bytes = SLOW_RECEIVE_BUFFER;  // what waits, waits at the server: that is where a slow line keeps it
        setsockopt(v->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    }
    v->connected = now_ns();
    if (v->fd < 0 || connect(v->fd, (struct sockaddr *)&gets.address, sizeof gets.address) != 0) {
        perror("loadclient: connect");
        return 0;
    }
    if (send(v->fd, request, request_bytes, MSG_NOSIGNAL) != (ssize_t)request_bytes) {
        perror("loadclient: send");
        return 0;
    }
    fcntl(v->fd, F_SETFL, O_NONBLOCK);
    if (!slow)
        epoll_ctl(poller, EPOLL_CTL_ADD, v->fd, &event);
    return 1;
}

static void print_result(const viewer *viewers, double seconds, double cpu_s, const usage *end, double client_cpu_s) {
    uint64_t frames = 0, bytes = 0, distinct = 0, repeated = 0, slow_frames = 0;
    double least = 1e9, most = 0;
    int fast = wanted.viewers - wanted.slow;
    for (int i = 0; i < wanted.viewers; i++) {
        const viewer *v = &viewers[i];
        double fps = (double)v->frames / seconds;
        if (v->slow) {
            slow_frames += v->frames;
            continue;
        }
        frames += v->frames;
        bytes += v->bytes;
        distinct += v->distinct;
        repeated += v->repeated;
        least = fps < least ? fps : least;
        most = fps > most ? fps : most;
        if (v->first)
            add(&seen.first_ms, (double)(v->first - v->connected) / 1e6);
    }
    samples *all[] = {&seen.interval_ms, &seen.latency_ms, &seen.timestamp_ms, &seen.slow_age_ms,
                      &seen.slow_interval_ms, &seen.first_ms, &gets.ms};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        sort(all[i]);
    if (fast == 0)
        least = 0;
    uint64_t delivered = frames + slow_frames;
    printf("{\"label\":\"%s\",\"n\":%d,\"slow\":%d,\"secs\":%.2f,\"frames\":%llu", wanted.label, wanted.viewers,
           wanted.slow, seconds, (unsigned long long)frames);
    printf(",\"fps_per_client\":%.2f,\"fps_min\":%.2f,\"fps_max\":%.2f,\"distinct_fps\":%.2f",
           fast ? (double)frames / seconds / fast : 0, least, most, fast ? (double)distinct / seconds / fast : 0);
    printf(",\"dups\":%llu,\"skipped\":%llu,\"MBps\":%.1f", (unsigned long long)repeated,
           (unsigned long long)seen.skipped, (double)bytes / seconds / 1e6);
    printf(",\"interval_p50_ms\":%.2f,\"interval_p99_ms\":%.2f", percentile(&seen.interval_ms, .5),
           percentile(&seen.interval_ms, .99));
    printf(",\"lat_p50_ms\":%.2f,\"lat_p99_ms\":%.2f", percentile(&seen.latency_ms, .5),
           percentile(&seen.latency_ms, .99));
    printf(",\"xts_lat_p50_ms\":%.2f,\"xts_lat_p99_ms\":%.2f", percentile(&seen.timestamp_ms, .5),
           percentile(&seen.timestamp_ms, .99));
    printf(",\"first_p50_ms\":%.1f,\"first_p99_ms\":%.1f,\"no_first\":%d", percentile(&seen.first_ms, .5),
           percentile(&seen.first_ms, .99), fast - (int)seen.first_ms.count);
    printf(",\"srv_cpu_pct\":%.1f,\"cpu_ms_per_frame\":%.4f,\"rss_mb\":%.1f,\"hwm_mb\":%.1f,\"threads\":%d",
           cpu_s / seconds * 100, delivered ? cpu_s * 1e3 / (double)delivered : -1, end->rss_mb, end->high_mb,
           end->threads);
    printf(",\"client_cpu_pct\":%.1f,\"eof\":%llu,\"bad\":%llu", client_cpu_s / seconds * 100,
           (unsigned long long)seen.ended, (unsigned long long)seen.malformed);
    if (wanted.slow)
        printf(",\"slow_frames\":%llu,\"slow_fps\":%.2f,\"slow_age_p50_ms\":%.1f,\"slow_age_max_ms\":%.1f,"
               "\"slow_interval_p50_ms\":%.1f,\"slow_interval_max_ms\":%.1f",
               (unsigned long long)slow_frames, (double)slow_frames / seconds / wanted.slow,
               percentile(&seen.slow_age_ms, .5), percentile(&seen.slow_age_ms, 1),
               percentile(&seen.slow_interval_ms, .5), percentile(&seen.slow_interval_ms, 1));
    if (wanted.get_path)
        printf(",\"gets\":%zu,\"get_p50_ms\":%.2f,\"get_p99_ms\":%.2f,\"get_errors\":%llu", gets.ms.count,
               percentile(&gets.ms, .5), percentile(&gets.ms, .99), (unsigned long long)gets.errors);
    if (checking)
        printf(",\"disorder\":%llu,\"broken\":%llu", (unsigned long long)seen.disorder,
               (unsigned long long)seen.broken);
    printf("}\n");
}

int main(int count, char **values) {
    int refused = read_options(count, values);
    if (refused)
        return refused;
    raise_descriptor_limit();
    gets.address.sin_family = AF_INET;
    gets.address.sin_port = htons((uint16_t)wanted.port);
    gets.path = wanted.get_path;
    gets.headers = wanted.headers;
    viewer *viewers = calloc((size_t)wanted.viewers, sizeof *viewers);
    int poller = epoll_create1(EPOLL_CLOEXEC);
    char request[2048];
    int request_bytes = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s:%d\r\n%s\r\n", wanted.path,
                                 wanted.host, wanted.port, wanted.headers);
    if (!viewers || poller < 0 || request_bytes >= (int)sizeof request)
        return usage_error("cannot start");

    uint64_t next_open = now_ns(), begins = 0, ends = 0, slow_read = now_ns();
    int opened = 0;
    usage before = {0}, after = {0};
    double own_before = 0;
    pthread_t getter;
    for (;;) {
        uint64_t t = now_ns();
        while (opened < wanted.viewers && t >= next_open) {
            if (!open_viewer(&viewers[opened], opened < wanted.slow, poller, (uint32_t)opened, request,
                             (size_t)request_bytes))
                return 1;
            opened++;
            next_open = next_open + OPEN_EVERY_NS < t ? t : next_open + OPEN_EVERY_NS;
        }
        if (opened == wanted.viewers && !begins)
            begins = t + (uint64_t)(wanted.warm_s * 1e9);
        if (begins && !measuring && t >= begins) {
            measuring = 1;
            begins = t;
            ends = t + (uint64_t)(wanted.window_s * 1e9);
            own_before = own_cpu_s();
            if (wanted.pid)
                add_tree(wanted.pid, &before);
            gets.running = 1;
            if (wanted.get_path && pthread_create(&getter, NULL, run_gets, NULL) != 0)
                return usage_error("no thread");
        }
        if (measuring && t >= ends)
            break;
        struct epoll_event events[256];
        int slow_reads = wanted.slow > 0 && wanted.slow_bytes_per_s > 0;
        int n = epoll_wait(poller, events, 256, opened < wanted.viewers ? 1 : slow_reads ? SLOW_TICK_MS : 20);
        for (int i = 0; i < n; i++)
            read_fast(&viewers[events[i].data.u32]);
        if (slow_reads) {
            t = now_ns();
            for (int i = 0; i < wanted.slow && i < opened; i++)
                if (!viewers[i].closed)
                    read_slowly(&viewers[i], wanted.slow_bytes_per_s, (double)(t - slow_read) / 1e9);
            slow_read = t;
        }
    }
    double seconds = (double)(now_ns() - begins) / 1e9;
    double own = own_cpu_s() - own_before;
    if (wanted.pid)
        add_tree(wanted.pid, &after);
    __atomic_store_n(&gets.running, 0, __ATOMIC_RELAXED);
    if (wanted.get_path)
        pthread_join(getter, NULL);
    print_result(viewers, seconds, after.cpu_s - before.cpu_s, &after, own);
    return 0;
}
