/*
 * A trace: all that a program did to the files below one directory, in order, with marks of what it
 * promised.
 *
 * shim.c writes it (preloaded into the program), also for several processes: each event is appended
 * by one system call. The program, or whoever watches it, appends marks. disk.h replays it.
 *
 * An event is a header and its payload (bytes of a write; names with a NUL each). Files and
 * directories are told apart by inode number; CREATE makes a number mean a new one.
 */
#ifndef SEGUE_CRASH_TRACE_H
#define SEGUE_CRASH_TRACE_H

#include <stddef.h>
#include <stdint.h>

/* Environment of shim.c. */
#define SHIM_TRACE "SEGUE_SHIM_TRACE" /* the trace file; unset: nothing is recorded */
#define SHIM_ROOT  "SEGUE_SHIM_ROOT"  /* the directory; its files as they are now are on disk */
#define SHIM_BOOT  "SEGUE_SHIM_BOOT"  /* what the program reads as the boot's id */
#define SHIM_LIE   "SEGUE_SHIM_LIE"   /* enum trace_lie: what the disk pretends */
#define SHIM_FAIL  "SEGUE_SHIM_FAIL"  /* "<n>:<error>": the n-th call that writes or syncs fails */

/* X(name, what is wrong) */
#define TRACE_LIES(X)                                                                              \
	X(no_fdatasync, "fdatasync does nothing")                                                  \
	X(late_fdatasync, "data reach the disk only after the next O_DSYNC write")                 \
	X(no_dsync, "O_DSYNC is not heeded")                                                       \
	X(no_dir_sync, "fsync of a directory does nothing")                                        \
	X(retried_sync, "a sync fails and drops what was to be written, its retry is believed")

enum trace_kind {
	TRACE_WRITE = 1,       /* file, offset, bytes */
	TRACE_DSYNC_WRITE = 2, /* the same, on disk when it returned */
	TRACE_TRUNCATE = 3,    /* file, offset: the new size */
	TRACE_SYNC = 4,        /* file or directory */
	TRACE_FAILED_SYNC = 5, /* what was pending is dropped */
	TRACE_CREATE = 6,      /* other: in which directory; offset: 1 for a directory; name */
	TRACE_RENAME = 7,      /* file: from directory, other: to directory; both names */
	TRACE_UNLINK = 8,      /* other: directory; name */
	TRACE_BLIND = 9,       /* file is mapped to be written: what follows cannot be seen */
	TRACE_MARK = 10,       /* file: enum trace_mark, other, offset: its two numbers */
	TRACE_INJECTED = 11,   /* offset: which call failed; other: the error number, 0: short */
};

/* What a program says of transaction n (other), or of batch n of lane `offset`. */
enum trace_mark {
	MARK_BEGIN = 1,  /* from now on it may be there */
	MARK_ACK = 2,    /* from now on it must be there */
	MARK_FAILED = 3, /* `offset`: the code that its caller got */
	MARK_START = 4, /* it was there when the program began, and may not be lost before either */
};

struct trace_event {
	uint32_t size; /* with its payload */
	uint32_t kind;
	uint64_t file, other, offset;
	unsigned char bytes[];
};

struct trace {
	unsigned char *bytes;
	size_t size;
};

/* Appends a mark to the trace file `fd` (opened with O_APPEND). Aborts if it cannot. */
void trace_mark(int fd, enum trace_mark mark, uint64_t n, uint64_t of);
/* Opens the file for marks; aborts if it cannot. */
int trace_open(const char *path);
/* Reads it; aborts if it is not whole. free(trace->bytes). */
void trace_load(struct trace *trace, const char *path);
/* The event behind `event` (NULL: the first), or NULL at the end. */
const struct trace_event *trace_next(const struct trace *trace, const struct trace_event *event);
/* Bytes of its payload. */
static inline size_t trace_payload(const struct trace_event *event)
{
	return event->size - sizeof(*event);
}

#endif
