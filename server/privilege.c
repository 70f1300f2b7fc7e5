/* SPDX-License-Identifier: ISC */
/*
 * Giving up root.  glibc's calls change all threads.  Groups go first, for it
 * takes root to change them; then it is tried to get everything back, which
 * must fail.
 */
#include "server/privilege.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static bool
privilege_fail(const struct config_owner *owner, const char *what)
{
    fprintf(stderr, "farblkd: user: cannot become uid %u, gid %u: %s: %s\n",
            owner->uid, owner->gid, what, strerror(errno));
    return false;
}

bool
privilege_begin(void)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        return true;
    fprintf(stderr, "farblkd: user: no_new_privs: %s\n", strerror(errno));
    return false;
}

/* Nothing of what it was is left, and nothing comes back. */
static bool
privilege_verify(const struct config_owner *owner)
{
    uid_t uids[3];
    gid_t gids[3];
    errno = 0;
    if (getresuid(&uids[0], &uids[1], &uids[2]) != 0
        || getresgid(&gids[0], &gids[1], &gids[2]) != 0)
        return privilege_fail(owner, "asking who it is");
    for (unsigned i = 0; i < 3; i++)
        if (uids[i] != owner->uid || gids[i] != owner->gid)
            return privilege_fail(owner, "it is somebody else still");
    if (setuid(0) == 0 || seteuid(0) == 0 || setresuid(0, 0, 0) == 0)
        return privilege_fail(owner, "root can be had again");
    if (owner->gid != 0 && (setgid(0) == 0 || setegid(0) == 0))
        return privilege_fail(owner, "root's group can be had again");
    return true;
}

bool
privilege_drop(const struct config_owner *owner)
{
    errno = 0;
    if (owner->uid == 0)
        return privilege_fail(owner, "that is root");
    if (geteuid() != 0) {
        if (geteuid() == owner->uid && getegid() == owner->gid)
            return privilege_verify(owner);
        errno = EPERM;
        return privilege_fail(owner, "only root can");
    }
    if (owner->name[0] != '\0' ? initgroups(owner->name, owner->gid) != 0
                               : setgroups(1, &owner->gid) != 0)
        return privilege_fail(owner, "setgroups");
    if (setresgid(owner->gid, owner->gid, owner->gid) != 0)
        return privilege_fail(owner, "setresgid");
    if (setresuid(owner->uid, owner->uid, owner->uid) != 0)
        return privilege_fail(owner, "setresuid");
    return privilege_verify(owner);
}
