/* Preloaded into a process, makes its wall clock tell another time: the kernel's and the number of nanoseconds that
 * stands in the file named by CHAOS_CLOCK, which is mapped, so that a change counts at once. Who waits on a condition until
 * a point in time of that clock waits until it has come, as with the kernel's: longer when it is set back meanwhile; it is
 * woken now and then for nothing, to look at the clock, as any waiter may be. The monotonic clock stays as it is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define BILLION 1000000000LL

/* How soon a change is noticed by who waits, in ns. */
#ifndef SLICE
#define SLICE (50 * 1000000LL)
#endif

static volatile int64_t *offset;
static int (*real_timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

__attribute__((constructor)) static void map_offset(void) {
    real_timedwait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real_timedwait) real_timedwait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *at = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (at != MAP_FAILED) offset = at;
}

int clock_gettime(clockid_t id, struct timespec *out) {
    int result = (int)syscall(SYS_clock_gettime, id, out);
    if (result == 0 && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        int64_t ns = (int64_t)out->tv_sec * BILLION + out->tv_nsec + *offset;
        out->tv_sec = (time_t)(ns / BILLION);
        out->tv_nsec = (long)(ns % BILLION);
    }
    return result;
}

int timespec_get(struct timespec *out, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, out) == 0 ? base : 0;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    out->tv_sec = now.tv_sec;
    out->tv_usec = (suseconds_t)(now.tv_nsec / 1000);
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    int64_t real = (int64_t)now.tv_sec * BILLION + now.tv_nsec;
    int64_t due = (int64_t)until->tv_sec * BILLION + until->tv_nsec;
    int64_t left = due - real - (offset ? *offset : 0);
    if (left < 0) left = 0;
    int64_t slice = real + (left < SLICE ? left : SLICE);
    struct timespec next = {slice / BILLION, slice % BILLION};
    int result = real_timedwait(cond, mutex, &next);
    /* Only the caller can tell whether what it waits for has come between the end of the wait and this point: the signal
     * for it went to nobody. So it looks, and waits again. */
    return result == ETIMEDOUT && left > SLICE ? 0 : result;
}

/* glibc's own does not come by the function above. */
int cnd_timedwait(cnd_t *restrict cond, mtx_t *restrict mutex, const struct timespec *restrict until) {
    switch (pthread_cond_timedwait((pthread_cond_t *)cond, (pthread_mutex_t *)mutex, until)) {
    case 0: return thrd_success;
    case ETIMEDOUT: return thrd_timedout;
    default: return thrd_error;
    }
}
