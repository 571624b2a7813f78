/* A clock that steps and a disk that stalls, for one process: loaded into it before everything else
 * (LD_PRELOAD). What is wrong is in the file that SOAK_SHIM names, two numbers of 8 bytes each: by how many
 * milliseconds the wall clock is ahead, and whether a sync is to wait. Compiled and written by shim.rs.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct wrong {
  volatile int64_t ahead_ms;
  volatile int64_t stalled;
};

static struct wrong nothing;
static struct wrong *wrong = &nothing;

__attribute__((constructor)) static void look(void) {
  const char *path = getenv("SOAK_SHIM");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *wrong, PROT_READ, MAP_SHARED, file, 0);
  if (page == MAP_FAILED) abort(); /* nothing would go wrong, and nobody would know */
  wrong = page;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int failed = syscall(SYS_clock_gettime, clock, time);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t ms = wrong->ahead_ms, ns = time->tv_nsec + ms % 1000 * 1000000;
    time->tv_sec += ms / 1000 + (ns >= 1000000000) - (ns < 0);
    time->tv_nsec = ns - ((ns >= 1000000000) - (ns < 0)) * 1000000000L;
  }
  return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  struct timespec now;
  (void)zone;
  int failed = clock_gettime(CLOCK_REALTIME, &now);
  if (!failed) {
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
  }
  return failed;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

static void wait_for_the_disk(void) {
  while (wrong->stalled) usleep(5000);
}

int fsync(int file) {
  wait_for_the_disk();
  return syscall(SYS_fsync, file);
}

int fdatasync(int file) {
  wait_for_the_disk();
  return syscall(SYS_fdatasync, file);
}
