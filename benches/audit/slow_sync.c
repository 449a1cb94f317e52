/* Makes every fdatasync take longer, by SYNC_DELAY_US microseconds in which the processor is free: as on a disk that is slower
 * than the one at hand. Loaded before the C library by `deploy/bench audit` where SYNC_DELAY_US is set. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int fdatasync(int file) {
    static int (*next)(int);
    static long delay;
    if (next == NULL) {
        const char *text = getenv("SYNC_DELAY_US");
        delay = text != NULL ? atol(text) : 0;
        next = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    }
    struct timespec rest = {delay / 1000000, delay % 1000000 * 1000};
    nanosleep(&rest, NULL);
    return next(file);
}
