/*
 * Goes through a sequence file from its head on, entry by entry, and checks each whole: all that
 * can be known of a file that has no foot. One thread; all that is read is taken to be hostile.
 */
#ifndef SEGUE_SOURCE_SEQFILE_SCAN_H
#define SEGUE_SOURCE_SEQFILE_SCAN_H

#include "core/sequence_file.h"

struct segue_seqfile_scan {
	int fd;        /* of the caller */
	uint64_t size; /* of the file; what lies behind is not looked at */
	uint64_t at;   /* where the next entry begins */
	struct segue_seqfile_head head;
	uint8_t *head_bytes; /* head.size of them */
	uint64_t *columns;   /* of the entry at hand: where each begins in it */
	uint8_t *buffer, *table;
	uint8_t header[SEGUE_SEQFILE_ENTRY_MAX]; /* of the entry at hand */
};

/*
 * Reads the head. SEGUE_EINVAL: this is no sequence file, or its head is not whole; SEGUE_EDATA,
 * SEGUE_EFORMAT, SEGUE_ENOMEM; SEGUE_ESOURCE: it cannot be read. segue_seqfile_scan_finish() is due
 * in any case.
 */
int segue_seqfile_scan_begin(struct segue_seqfile_scan *scan, int fd, uint64_t size);
void segue_seqfile_scan_finish(struct segue_seqfile_scan *scan);

/*
 * Reads the foot and the index: *index has foot->entries of them, malloc'd. SEGUE_EINVAL: it has no
 * foot; SEGUE_EDATA: foot or index are damaged, or not of this head; SEGUE_EFORMAT, SEGUE_ENOMEM,
 * SEGUE_ESOURCE.
 */
int segue_seqfile_scan_index(const struct segue_seqfile_scan *scan, struct segue_seqfile_foot *foot,
	struct segue_seqfile_indexed **index);

/*
 * Reads the entry at scan->at, all of its blocks, and moves that behind it; *entry points into
 * scan->header. SEGUE_EDATA: no whole sound entry lies there, and nothing has moved; SEGUE_EFORMAT,
 * SEGUE_ESOURCE.
 */
int segue_seqfile_scan_next(struct segue_seqfile_scan *scan, struct segue_seqfile_entry *entry);

/*
 * Looks, from scan->at on, for the next multiple of 64 where an entry begins whose header is sound
 * and which ends within the file, and moves behind it; its columns are not read. SEGUE_ENOTFOUND:
 * there is none up to the end; SEGUE_ESOURCE.
 */
int segue_seqfile_scan_find(struct segue_seqfile_scan *scan, struct segue_seqfile_entry *entry);

#endif
