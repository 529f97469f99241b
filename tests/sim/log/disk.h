/*
 * A disk in memory in place of source/log/disk.c: what the system's cache has, and what a power cut
 * leaves. Its calls fail, or end the server, when the simulator says so.
 *
 * A write is in the cache at once, and on disk after a sync; a sync that fails drops it from what
 * is to be written, and leaves it in the cache. Of what is pending a cut leaves any part, in units
 * of 512 bytes; some of them as garbage.
 */
#ifndef SEGUE_SIM_LOG_DISK_H
#define SEGUE_SIM_LOG_DISK_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

/* An empty disk. `random` gives a number below its argument. */
void simdisk_begin(uint64_t (*random)(uint64_t below));
void simdisk_cut_power(void);

enum simdisk_fault { SIMDISK_NONE, SIMDISK_KILL, SIMDISK_ERROR, SIMDISK_FULL };
/* What happens at the n-th call from now on that writes, syncs or changes names. */
void simdisk_fault(enum simdisk_fault fault, uint64_t n);
/* Whether it has; that is then forgotten. */
bool simdisk_struck(void);
/* Where a kill jumps to. */
extern jmp_buf simdisk_killed;
/* A call of another part of the server that a kill may strike. */
void simdisk_call(void);

#endif
