/* SPDX-License-Identifier: ISC */
/* The handler only notes the signal; whoever loops asks for it. */
#include "tools/interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

/* Other threads ask, too; lock-free, as a handler wants it. */
static atomic_int interrupt_seen;

static void
interrupt_note(int number)
{
    interrupt_seen = number;
}

void
interrupt_catch(void)
{
    static const int numbers[] = {SIGINT, SIGTERM};

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction action = {.sa_handler = interrupt_note,
                                   .sa_flags = (int)SA_RESETHAND | SA_RESTART};
        struct sigaction old;

        sigemptyset(&action.sa_mask);
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(numbers[i], &action, NULL);
    }
}

int
interrupt_signal(void)
{
    return interrupt_seen;
}
