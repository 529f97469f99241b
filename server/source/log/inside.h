/* What the files of a log share, and nobody else sees. */
#ifndef SEGUE_SOURCE_LOG_INSIDE_H
#define SEGUE_SOURCE_LOG_INSIDE_H

#include <pthread.h>

#include "core/digest.h"
#include "source/log/disk.h"
#include "source/log/log.h"

#define SEGUE_LOG_NEW "new" /* of a file whose head is not on disk yet */

/* A file, as far as it is written. Finished ones have their index and foot behind `end`. */
struct segue_log_part {
	uint64_t first, count; /* its sequences */
	uint64_t head, end;    /* bytes: where its entries begin and end */
	struct segue_seqfile_indexed *index;
	size_t room;
	uint64_t steps;
	uint32_t key_max;
	bool finished;
};

struct segue_log {
	uint64_t file_bytes;
	struct segue_log_dir *dir;
	struct segue_seqfile_head
		head; /* of its files, but for the producers: read by any thread */
	struct segue_seqfile_head next;  /* of the file that comes next */
	struct segue_seqlog producers;   /* as of `written` */
	struct segue_log_file *file;     /* the last, unless it is finished; else NULL */
	struct segue_digest fingerprint; /* of that one, so far */
	/* What others ask for; written by the one thread, under `mutex`. */
	pthread_mutex_t mutex;
	struct segue_log_part *part; /* in order; the last is the one that grows */
	size_t parts, room;
	struct segue_log_place written, synced;
	bool failed;
};

/* Where a sequence is, and what the index says of it. */
struct segue_log_found {
	bool there;
	char name[SEGUE_LOG_NAME]; /* of its file */
	uint64_t at, end;
	uint32_t steps, crc;
};
void segue_log_find(struct segue_log *log, uint64_t number, struct segue_log_found *found);

/* The last one. */
static inline struct segue_log_part *segue_log_last(const struct segue_log *log)
{
	return &log->part[log->parts - 1];
}

/* A log without files. SEGUE_ENOMEM, SEGUE_EINVAL, and as segue_log_dir_open(). */
int segue_log_new(const struct segue_log_means *means, const uint8_t id[SEGUE_SEQLOG_ID],
	struct segue_log **out);
/* One more file, `part` copied. SEGUE_ENOMEM. */
int segue_log_add_part(struct segue_log *log, const struct segue_log_part *part);
/*
 * Makes the next file, with a head that says all that its producers have inserted, and its name is
 * on disk. SEGUE_ENOSPACE, SEGUE_ENOMEM: nothing was made; SEGUE_ESTORE.
 */
int segue_log_make_file(struct segue_log *log);
/* One more entry of the part. SEGUE_ENOMEM. */
int segue_log_index(struct segue_log_part *part, const struct segue_seqfile_entry *entry);
/* Bytes of index and foot of the part, malloc'd. SEGUE_ENOMEM. */
int segue_log_pack_end(const struct segue_log_part *part, const struct segue_digest *fingerprint,
	uint8_t **out, size_t *size);

/*
 * Reads the header of the entry at `at` of a file, which ends at `end`, into `bytes`
 * (SEGUE_SEQFILE_ENTRY_MAX of room), to which *out points. SEGUE_EDATA: no sound one is there;
 * SEGUE_ESTORE: it could not be read.
 */
int segue_log_read_header(const struct segue_seqfile_head *head, struct segue_log_file *file,
	uint64_t at, uint64_t end, uint8_t *bytes, struct segue_seqfile_entry *out);
/* Reads all of that entry, and checks it. Fails likewise; SEGUE_ENOMEM. */
int segue_log_read_entry(const struct segue_seqfile_head *head, struct segue_log_file *file,
	uint64_t at, uint64_t end, struct segue_log_entry **out);

#endif
