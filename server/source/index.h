/*
 * The index of a data set: where each record of each file is, 16 bytes a record, whatever the kind
 * of its files.
 */
#ifndef SEGUE_SOURCE_INDEX_H
#define SEGUE_SOURCE_INDEX_H

#include "source/files.h"
#include "source/source.h"

struct segue_index_entry {
	uint64_t offset; /* of the header in the file's data */
	uint32_t length; /* TFRecord: bytes of the record's data; sequence files: steps */
	uint32_t crc; /* TFRecord: as stored behind them, masked; sequence files: of its header */
};

struct segue_index {
	struct segue_index_entry *entry; /* file by file */
	uint64_t *first;                 /* per file: its first entry; one more, the end */
	uint64_t *listed; /* per listed file: number of its first record; one more, the end */
	size_t files, listings;
	uint64_t fingerprint[2];
};

/* Tables for as many files; entries are the caller's to add. SEGUE_ENOMEM. */
int segue_index_init(struct segue_index *index, const struct segue_files *files);
/* All entries are there: finds the numbers of records and the fingerprint. */
void segue_index_settle(struct segue_index *index, const struct segue_files *files);
/* A zeroed index is fine. */
void segue_index_finish(struct segue_index *index);

/* Records of the data set: each listing of a file counts. */
uint64_t segue_index_records(const struct segue_index *index);
/* Where record `number` < records is: *file, and its entry's place in index->entry. */
uint64_t segue_index_find(const struct segue_index *index, const struct segue_files *files,
	uint64_t number, size_t *file);
/* Bytes of memory. */
size_t segue_index_memory(const struct segue_index *index);

#endif
