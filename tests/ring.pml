/* SPDX-License-Identifier: ISC */
/*
 * A model of one direction of a ring (proto/ring.h), for spin: sequences of
 * entries, the flag of the taker who sleeps, the doorbell.
 *
 * PUBLISHERS threads each publish one entry after the other, in places that one
 * atomic addition gives them (as the server's threads do with completions; with
 * one publisher it is a client with his submissions).  One taker takes them all,
 * looks for a while or does not, and sleeps when there is nothing.
 *
 * The statements that are one step here are single accesses there, sequentially
 * consistent: the load and the exchange of a flag are two.  A publisher looks at
 * the flag when it likes after it has published, for several entries at once.  A
 * doorbell is a socket that holds octets; what does not fit is dropped, for then
 * it is full, and heard.
 *
 * Checked: each entry is taken once, in order, with what was published in it; a
 * place is not written before it was taken; and nobody sleeps for ever while an
 * entry is there: a run that ends has taken all, and spin reports one in which
 * all wait as an invalid end state.
 *
 * Faults, each of which spin must find (tests/ring_model.sh):
 *   -DFAULT_NO_RECHECK   the taker sleeps without having looked once more
 *   -DFAULT_LOOK_FIRST   the publisher looks at the flag before he publishes
 *   -DFAULT_NO_LIMIT     more entries than places
 */
#ifndef PUBLISHERS
#define PUBLISHERS 2
#endif
#ifndef DEPTH
#define DEPTH 2
#endif
#ifndef ENTRIES
#define ENTRIES 5 /* in all */
#endif

#ifdef FAULT_NO_LIMIT
#define ROOM true
#else
#define ROOM (begun < DEPTH)
#endif

byte sequence[DEPTH]; /* as in memory */
byte content[DEPTH];
byte next; /* the position to hand out */
byte begun; /* entries that are not answered: submitted, not taken back */
bool sleeps; /* the taker's flag */
byte bell; /* octets in the socket */
byte taken; /* the taker's position */

inline look()
{
    wanted = sleeps; /* a load */
    if
    ::  wanted ->
        atomic { wanted = sleeps; sleeps = false }; /* an exchange */
        if
        ::  wanted -> if :: bell < 2 -> bell++ :: else fi
        ::  else
        fi
    ::  else
    fi
}

active [PUBLISHERS] proctype publisher()
{
    byte position;
    bool wanted, owes; /* it has published, and not looked since */
    do
    ::  atomic { /* room is one's own affair: slots, tags */
            (next < ENTRIES && ROOM) ->
            begun++; position = next; next++
        };
#ifdef FAULT_LOOK_FIRST
        look();
#endif
        atomic {
            assert(position < DEPTH || taken > position - DEPTH);
            content[position % DEPTH] = position
        };
        sequence[position % DEPTH] = position + 1;
#ifndef FAULT_LOOK_FIRST
        owes = true
    ::  owes ->
        look();
        owes = false
#endif
    ::  next == ENTRIES && !owes -> break
    od
}

active proctype taker()
{
    byte found;
    do
    ::  taken == ENTRIES -> break
    ::  else ->
        found = sequence[taken % DEPTH];
        if
        ::  found == taken + 1 ->
            assert(content[taken % DEPTH] == taken);
            atomic { taken++; begun-- }
        ::  else ->
            /* what was there a lap before, or nothing yet */
            assert(found == 0 || found + DEPTH == taken + 1);
            if
            ::  skip /* looks again at once */
            ::  sleeps = true;
#ifndef FAULT_NO_RECHECK
                found = sequence[taken % DEPTH];
#endif
                if
                ::  found == taken + 1
                ::  else -> bell > 0 -> bell = 0 /* sleeps, and hears */
                fi;
                sleeps = false
            fi
        fi
    od
}
