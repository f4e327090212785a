/* Faults inside a process under test: a time of day that jumps, flushes that fail or take long, an end in the middle
 * of a write. Preloaded into the unchanged binary; obeys a small shared file, so that a test can make and end a fault
 * while the process runs. Touches only files below MOTET_FAULTS_FOLDER. Built by shim.rs with the compiler that the
 * linker of Rust needs anyway. Never part of what is shipped. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Kept in step with `Place` in shim.rs: one 64-bit number each, in this order. */
struct control {
    _Atomic int64_t clock_ms;     /* added to the time of day */
    _Atomic int64_t flush_errno;  /* flushes fail with this; 0 for none */
    _Atomic int64_t flush_ms;     /* flushes take this much longer */
    _Atomic int64_t kill_in;      /* the n-th write or flush from now on is the last; 0 for none */
    _Atomic int64_t kill_when;    /* 0 before it, 1 in the middle of it, 2 after it */
    _Atomic int64_t operations;   /* writes and flushes seen so far */
    _Atomic int64_t flushes;      /* flushes seen so far */
};

static struct control *control;
static char folder[PATH_MAX];
static size_t folder_length;

static int (*next_clock_gettime)(clockid_t, struct timespec *);
static int (*next_fsync)(int);
static int (*next_fdatasync)(int);
static ssize_t (*next_write)(int, const void *, size_t);
static ssize_t (*next_pwrite)(int, const void *, size_t, off_t);

__attribute__((constructor)) static void begin(void) {
    next_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    next_fsync = dlsym(RTLD_NEXT, "fsync");
    next_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    next_write = dlsym(RTLD_NEXT, "write");
    next_pwrite = dlsym(RTLD_NEXT, "pwrite");
    const char *path = getenv("MOTET_FAULTS_CONTROL"), *below = getenv("MOTET_FAULTS_FOLDER");
    if (!path || !below || !realpath(below, folder)) return;
    folder_length = strlen(folder);
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    void *memory = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory != MAP_FAILED) control = memory;
}

static int concerns(int file) {
    if (!control || file < 3) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > (ssize_t)folder_length && !strncmp(path, folder, folder_length) && path[folder_length] == '/';
}

static void end(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Whether this operation is the last one of the process. */
static int is_last(void) {
    atomic_fetch_add(&control->operations, 1);
    if (atomic_load(&control->kill_in) <= 0) return 0;
    return atomic_fetch_sub(&control->kill_in, 1) == 1;
}

static int flush(int file, int (*next)(int)) {
    if (!concerns(file)) return next(file);
    atomic_fetch_add(&control->flushes, 1);
    int last = is_last();
    if (last && atomic_load(&control->kill_when) < 2) end();
    int64_t wait = atomic_load(&control->flush_ms), failure = atomic_load(&control->flush_errno);
    if (wait > 0) {
        struct timespec span = {wait / 1000, (wait % 1000) * 1000000};
        nanosleep(&span, NULL);
    }
    if (failure) {
        errno = (int)failure;
        return -1;
    }
    int outcome = next(file);
    if (last) end();
    return outcome;
}

int fsync(int file) { return flush(file, next_fsync); }
int fdatasync(int file) { return flush(file, next_fdatasync); }

/* How many bytes of a write to do; dies before it when that was asked for. */
static size_t share(int last, size_t count) {
    int64_t when = last ? atomic_load(&control->kill_when) : 2;
    if (when == 0) end();
    return when == 1 ? count / 2 : count;
}

ssize_t write(int file, const void *bytes, size_t count) {
    if (!concerns(file)) return next_write(file, bytes, count);
    int last = is_last();
    ssize_t written = next_write(file, bytes, share(last, count));
    if (last) end();
    return written;
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t place) {
    if (!concerns(file)) return next_pwrite(file, bytes, count, place);
    int last = is_last();
    ssize_t written = next_pwrite(file, bytes, share(last, count), place);
    if (last) end();
    return written;
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t place) { return pwrite(file, bytes, count, place); }

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!next_clock_gettime) next_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int outcome = next_clock_gettime(clock, time);
    if (!outcome && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t shift = atomic_load(&control->clock_ms);
        int64_t nanos = time->tv_nsec + (shift % 1000) * 1000000;
        time->tv_sec += shift / 1000 + (nanos < 0 ? -1 : nanos / 1000000000);
        time->tv_nsec = nanos < 0 ? nanos + 1000000000 : nanos % 1000000000;
    }
    return outcome;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (seconds) *seconds = now.tv_sec;
    return now.tv_sec;
}
