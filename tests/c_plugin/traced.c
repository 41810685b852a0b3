/* Leaves a trace as soon as any code of its library runs, and does what FTHOST_ACT says: linked with constant.c by tests that watch how a file
 * is opened.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((constructor)) static void loaded(void) {
    const char *path = getenv("FTHOST_TRACE"), *act = getenv("FTHOST_ACT");
    FILE *trace = path ? fopen(path, "a") : NULL;
    if (trace) {
        fputc('x', trace);
        fclose(trace);
    }
    if (act && strcmp(act, "crash") == 0) {
        *(volatile int *)8 = 0;
    } else if (act && strcmp(act, "abort") == 0) {
        fputs("the \033[31mphalange\n", stderr);
        abort();
    } else if (act && strcmp(act, "leave") == 0) {
        _exit(0);
    } else if (act && strcmp(act, "wait") == 0) {
        pause();
    } else if (act && strcmp(act, "spin") == 0) {
        for (volatile int i = 0;; i++) {
        }
    }
}

__attribute__((destructor)) static void unloaded(void) {
    const char *act = getenv("FTHOST_ACT");
    if (act && strcmp(act, "crash_at_the_end") == 0) {
        *(volatile int *)8 = 0;
    }
}
