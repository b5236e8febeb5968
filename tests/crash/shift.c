// Shifts the system's clock for one process, by as many nanoseconds as the file CLOCK_SHIFT says (an int64, read anew at each
// call). With CLOCK_SHIFT_ALL also the monotonic clock, which no machine does: clock.py's mutant.
//
// Build: cc -shared -fPIC -o shift.so shift.c
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000L

static volatile const int64_t *shift;
static int shifts_all;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("CLOCK_SHIFT");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) abort();
    close(file);
    shift = page;
    shifts_all = getenv("CLOCK_SHIFT_ALL") != NULL;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    int is_wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    int is_monotonic = clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_BOOTTIME;
    if (result || !shift || !(is_wall || (shifts_all && is_monotonic))) return result;
    int64_t nanos = time->tv_nsec + *shift % SECOND;
    time->tv_sec += *shift / SECOND + (nanos >= SECOND) - (nanos < 0);
    time->tv_nsec = (nanos + SECOND) % SECOND;
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}
