/*
 * Allocations that fail: the n-th of all, once or from there on.
 *
 * As a library for LD_PRELOAD (server) or linked into a test program (client library); the panel lies in
 * a file that is mapped by all processes concerned. Every malloc, calloc, realloc and memalign of
 * the process counts, whoever makes it: the program, LMDB, protobuf-c, libc.
 */
#ifndef SEGUE_TEST_FAIL_ALLOC_H
#define SEGUE_TEST_FAIL_ALLOC_H

#include <stdatomic.h>
#include <stdint.h>

enum { FAIL_ALLOC_ENDS = 64 };

struct fail_alloc_panel {
	_Atomic uint64_t first, last; /* calls that fail, from 1; 0: none */
	_Atomic uint64_t least;       /* bytes: smaller ones do not count */
	_Atomic uint64_t calls;       /* made by all processes */
	_Atomic uint64_t failed;
	/* Of processes that have ended in order: blocks that were not freed. */
	_Atomic uint64_t ends;
	_Atomic int64_t left[FAIL_ALLOC_ENDS];
};

/* The file: of a process that has it in its environment the allocations count from the start. */
#define FAIL_ALLOC_PANEL "SEGUE_FAIL_ALLOC_PANEL"

/* From here on the allocations of this process count; NULL: no longer. */
void fail_alloc_use(struct fail_alloc_panel *panel);
/* Blocks that this process has allocated and not freed. */
int64_t fail_alloc_left(void);

#endif
