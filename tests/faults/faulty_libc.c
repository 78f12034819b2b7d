/* Preloaded into a server: a clock that jumps, and a disk that is slow or fails, as a control file says at the moment.
 *
 * FAULTY_CONTROL names that file, four 64-bit integers: nanoseconds added to the wall clock, microseconds that a write
 * takes longer, microseconds that a sync takes longer, and the error that both end with, 0 for none. Only files whose
 * path begins with FAULTY_PATH have a faulty disk. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { CLOCK_NS, WRITE_US, SYNC_US, ERROR, WORDS };

static const volatile int64_t quiet[WORDS];
static const volatile int64_t *control = quiet;
static const char *prefix = "/";

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTY_CONTROL");
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return;
    void *found = mmap(NULL, WORDS * sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (found != MAP_FAILED)
        control = found;
    if (getenv("FAULTY_PATH") != NULL)
        prefix = getenv("FAULTY_PATH");
}

/* Returns whether the call is to fail, with errno set; waits as long as such a call takes. */
static int disturbed(int file, int word) {
    char link[64], path[4096];
    if (control[word] == 0 && control[ERROR] == 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return 0;
    path[size] = 0;
    if (strncmp(path, prefix, strlen(prefix)) != 0)
        return 0;
    if (control[word] != 0)
        usleep((useconds_t)control[word]);
    if (control[ERROR] != 0) {
        errno = (int)control[ERROR];
        return 1;
    }
    return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int file, const void *bytes, size_t size, off_t place) {
    return disturbed(file, WRITE_US) ? -1 : REAL(pwrite)(file, bytes, size, place);
}

ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t place) {
    return disturbed(file, WRITE_US) ? -1 : REAL(pwrite64)(file, bytes, size, place);
}

int fsync(int file) { return disturbed(file, SYNC_US) ? -1 : REAL(fsync)(file); }

int fdatasync(int file) { return disturbed(file, SYNC_US) ? -1 : REAL(fdatasync)(file); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    if (result == 0 && control[CLOCK_NS] != 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t moved = now->tv_sec * INT64_C(1000000000) + now->tv_nsec + control[CLOCK_NS];
        now->tv_sec = moved / INT64_C(1000000000);
        now->tv_nsec = moved % INT64_C(1000000000);
    }
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (into != NULL)
        *into = precise.tv_sec;
    return precise.tv_sec;
}
