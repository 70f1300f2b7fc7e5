/* SPDX-License-Identifier: ISC */
/*
 * confine FILE PROGRAM [ARGUMENT ...]: run a program as systemd would run it with
 * NoNewPrivileges, MemoryDenyWriteExecute and a SystemCallFilter, for where there
 * is no systemd.
 *
 * FILE holds the numbers of the system calls that are allowed.  Unlike systemd's,
 * which gives EPERM, the filter kills: a test shall notice.  Memory that can be
 * written and executed is refused by the kernel (since 6.3), otherwise by nobody,
 * which is told.  Exit status 77: there are no filters here.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CALLS_MAX 1000u
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif
#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#define ARCH 0u
#endif

int
main(int argc, char **argv)
{
    static struct sock_filter filter[2 * CALLS_MAX + 8];
    unsigned short count = 0;
    unsigned number, calls = 0;
    FILE *file = argc > 2 ? fopen(argv[1], "re") : NULL;
    if (file == NULL) {
        fprintf(stderr, "usage: confine FILE PROGRAM [ARGUMENT ...]\n");
        return 2;
    }
    if (ARCH == 0)
        return 77;
    filter[count++] = (struct sock_filter)BPF_STMT(
        BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    filter[count++] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    filter[count++] =
        (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    filter[count++] = (struct sock_filter)BPF_STMT(
        BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    while (fscanf(file, "%u", &number) == 1 && calls++ < CALLS_MAX) {
        filter[count++] = (struct sock_filter)BPF_JUMP(
            BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
        filter[count++] =
            (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    fclose(file);
    filter[count++] =
        (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    const struct sock_fprog program = {.len = count, .filter = filter};
    if (prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0)
        fprintf(stderr, "confine: memory may be written and executed: %s\n",
                strerror(errno));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
        || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        fprintf(stderr, "confine: no filter: %s\n", strerror(errno));
        return 77;
    }
    execv(argv[2], argv + 2);
    fprintf(stderr, "confine: %s: %s\n", argv[2], strerror(errno));
    return 126;
}
