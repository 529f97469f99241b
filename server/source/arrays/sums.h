/*
 * Checksums of all that files hold: a CRC32C for each block of 4 KiB, made once, when the stream is
 * made, and kept. Larger blocks would make small windows slow.
 */
#ifndef SEGUE_SOURCE_ARRAYS_SUMS_H
#define SEGUE_SOURCE_ARRAYS_SUMS_H

#include "source/files.h"
#include "source/source.h"

#define SEGUE_SUMS_BLOCK 4096

struct segue_sums {
	uint32_t *sum;   /* file by file */
	uint64_t *first; /* per file: its first; one more, the end */
};

/* What they are kept under. */
void segue_sums_name(const uint64_t fingerprint[2], char name[SEGUE_KEPT_NAME_SIZE]);
/*
 * Those that were kept of these files, else makes them (long, reports progress), and keeps them if
 * `keep`. SEGUE_ESOURCE,
 * SEGUE_ECHANGED, SEGUE_ENOMEM, SEGUE_EGONE, what the keeper returns.
 */
int segue_sums_open(struct segue_sums *sums, struct segue_files *files,
	const uint64_t fingerprint[2], bool keep, const struct segue_source_means *means);
/* A zeroed one is fine. */
void segue_sums_close(struct segue_sums *sums);
/* Bytes of memory. */
size_t segue_sums_memory(const struct segue_sums *sums, const struct segue_files *files);

/*
 * As segue_files_read(), and each block that is touched is checked. SEGUE_ECHANGED names the file
 * and the block that has another checksum.
 */
int segue_sums_read(const struct segue_sums *sums, struct segue_files *files, size_t file,
	uint64_t position, void *bytes, size_t size);

#endif
