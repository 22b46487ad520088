#include "cli/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

static volatile sig_atomic_t seen;
static const char *volatile notice;
static volatile int forward_fd;

/* Ends by the same signal, so that the parent (a shell's loop, make) sees why. */
static void die(int number)
{
    file_atomic_unlink_all();
    signal(number, SIG_DFL);
    raise(number);
}

static void note(int number)
{
    if (seen) die(number);
    seen = 1;
    if (notice == NULL) return;
    const int saved = errno;
    const ssize_t written = write(STDERR_FILENO, notice, strlen(notice));
    (void)written; /* nowhere to say it: no matter */
    errno = saved;
}

/* Signals come to any thread: libraries start some that block none. */
static void forward(int number)
{
    if (++seen > 2) die(number);
    const int saved = errno;
    const ssize_t written = write(forward_fd, "", 1);
    (void)written; /* full: it is known already */
    errno = saved;
}

/* Without SA_RESTART: a read that waits for input ends when Ctrl-C is pressed. */
static void handle(int number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

void interrupt_setup(void)
{
    handle(SIGINT, die);
    handle(SIGTERM, die);
    handle(SIGHUP, die);
    handle(SIGPIPE, SIG_IGN);
}

void interrupt_catch(const char *say)
{
    seen = 0;
    notice = say;
    handle(SIGINT, note);
}

void interrupt_forward(int fd)
{
    seen = 0;
    forward_fd = fd;
    handle(SIGINT, forward);
    handle(SIGTERM, forward);
}

void interrupt_release(void)
{
    seen = 0;
    handle(SIGINT, die);
    handle(SIGTERM, die);
}

bool interrupt_seen(void)
{
    return seen != 0;
}
