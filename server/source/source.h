/*
 * A source: a pure map from record number to (key, steps, values), read where and when it is
 * needed.
 *
 * A source is shared by all loader threads of a stream. A record is an open reading position in one
 * of its records and belongs to one thread at a time. kinds.h finds the driver of a kind; nobody
 * outside of this room names one.
 */
#ifndef SEGUE_SOURCE_SOURCE_H
#define SEGUE_SOURCE_SOURCE_H

#include <pthread.h>

#include "core/spec.h"
#include "guard/roots.h"
#include "source/sink.h"

struct segue_source;
struct segue_record;
struct segue_mix_log;

/*
 * A record is whole, and is not what the spec says: a mistake of the spec, or of whoever wrote the
 * record; never passed over. Known in this room alone: segue_source_admit makes it SEGUE_EDATA.
 */
#define SEGUE_EMISFIT (-1000)

/*
 * The record is not there yet: the input goes on (SEGUE_PLAN_LIVE). Whoever has it inserted tells
 * those who asked to ask again. Known to the server alone: who cannot wait makes it another code.
 */
#define SEGUE_ENOTYET (-1001)

/*
 * A record is whole, and longer than the spec's maximum_length, which says to pass over such. Known
 * in this room alone: segue_source_judge makes it SEGUE_SOURCE_SKIPPED.
 */
#define SEGUE_ETOOLONG (-1002)

/* Ends each error that says how data have changed. */
#define SEGUE_CHANGED_ADVICE                                                                       \
	"; a stream belongs to its data set: put it back as it was, or give the stream another "   \
	"name"

#define SEGUE_KEPT_NAME_SIZE 48 /* of the names that things are kept under */

/* segue_source_admit: the record is damaged, or too long, and the spec says to pass over such. */
#define SEGUE_SOURCE_SKIPPED 1

/* What a record is, found by admitting it. */
struct segue_admitted {
	uint64_t array_steps;  /* n >= 1 */
	uint64_t total_length; /* = n unless the record says otherwise */
};

/* Counters of a source, read without a lock by reports. */
struct segue_source_stats {
	uint64_t records, files, bytes;
	uint64_t skipped;      /* records passed over so far (each time they were met) */
	uint64_t index_memory; /* bytes of index in memory */
	uint64_t descriptors;  /* that it has open at most */
	uint64_t fingerprint[2];
	const char *crc; /* the CRC32C implementation in use: "vpclmulqdq", "sse4.2", "table" */
};

struct segue_source_ops {
	uint64_t (*records)(const struct segue_source *source);
	/* Which part of a mix record `number` is of. NULL: of a kind without parts. */
	uint32_t (*part)(struct segue_source *source, uint64_t number);
	/*
	 * Of a log, or a mix with one: the running hash of what its first `count` records have of
	 * it, which are there. NULL: of another kind. What a read says.
	 */
	int (*hash)(struct segue_source *source, uint64_t count, uint64_t hash[2]);
	/* Of a log: so many records are there. NULL: of another kind. */
	uint64_t (*there)(const struct segue_source *source);
	/*
	 * Of a mix with a log: that one's id, and the numbers of both (mix/arrange.h); then the log
	 * itself, which is the mix's from now on, and without which it has nothing to read. NULL:
	 * of another kind.
	 */
	void (*log)(
		const struct segue_source *source, uint64_t id[2], struct segue_mix_log *numbers);
	void (*join)(struct segue_source *source, struct segue_source *log);
	uint32_t (*key_max)(const struct segue_source *source);
	/*
	 * Reads and checks record `number` whole, by one scan: lengths, checksum, structure, the
	 * shape of every step of every feature, that all sequence features have the same number of
	 * steps, and that the spec allows it (segue_source_check_steps; nothing is cut here). On
	 * success the caller owns *out. SEGUE_EDATA: its bytes were read and are damaged, hence
	 * always (the detail names file and offset); SEGUE_EMISFIT: they are sound and do not fit
	 * the spec (also the feature, and what the record holds); SEGUE_ETOOLONG; SEGUE_ESOURCE:
	 * they could not be read, or the file has changed (SEGUE_ECHANGED); SEGUE_ENOTYET.
	 */
	int (*admit)(struct segue_source *source, uint64_t number, struct segue_record **out,
		struct segue_admitted *admitted);
	/*
	 * Writes the length of each record (array steps, uncut; 0: the record is damaged and
	 * on_error = skip): `records` of them. Of those that are too long it may write 0 where
	 * they are passed over. Long; reports progress. One thread at a time.
	 */
	int (*find_lengths)(struct segue_source *source, segue_progress_fn *progress, void *arg,
		uint32_t *lengths);
	/* Whether that reads no record: the index has them all. NULL: never. */
	bool (*has_lengths)(const struct segue_source *source);
	/* Fills in all but `skipped` and the memory of lengths, which are there already. */
	void (*stats)(const struct segue_source *source, struct segue_source_stats *stats);
	/*
	 * SEGUE_ECHANGED says how the data differ from those that had the other fingerprint, as far
	 * as what the keeper has kept of them tells.
	 */
	int (*explain_change)(const struct segue_source *source, const uint64_t fingerprint[2]);
	void (*destroy)(struct segue_source *source);
};

struct segue_record_ops {
	/* The record's key: not NUL-terminated, 1..key_max bytes, valid as long as the record. */
	const char *(*key)(const struct segue_record *record, size_t *size);
	/* Moves every feature's cursor to step `step` (forwards or backwards). */
	int (*seek)(struct segue_record *record, uint64_t step);
	/*
	 * Writes the next `steps` steps of sequence feature `feature` (order of the spec) densely
	 * to `out` (steps * field size bytes) and moves its cursor on. The caller does not ask
	 * beyond the end. SEGUE_ESOURCE if a read fails; SEGUE_ECHANGED if the bytes are no longer
	 * those that were admitted.
	 */
	int (*read)(struct segue_record *record, size_t feature, uint64_t steps, void *out);
	/* Writes context feature `feature`. */
	int (*context)(struct segue_record *record, size_t feature, void *out);
	/*
	 * Writes the sequence's initial value of state `state`, one that is from the data. NULL: of
	 * a kind without (core/spec_source.h).
	 */
	int (*initial)(struct segue_record *record, size_t state, void *out);
	/*
	 * The same of features that are not dense: appends the values to the sink, and writes
	 * behind offsets[0], which says how many the sink has of the feature already, how many it
	 * has with each step: offsets[1] to offsets[steps]; of context offsets[1]. What the sink
	 * says, too. NULL: of a kind without (core/spec_source.h).
	 */
	int (*read_variable)(struct segue_record *record, size_t feature, uint64_t steps,
		int64_t *offsets, struct segue_sink *sink);
	int (*context_variable)(struct segue_record *record, size_t feature, int64_t *offsets,
		struct segue_sink *sink);
	/* Bytes of memory that the record holds; for accounting. */
	size_t (*memory)(const struct segue_record *record);
	void (*release)(struct segue_record *record);
};

/* First member of an implementation's own struct. */
struct segue_source {
	const struct segue_source_ops *ops;
	enum segue_on_error on_error;
	uint32_t maximum_length; /* of the spec: 0: none */
	enum segue_on_too_long on_too_long;
	_Atomic uint64_t skipped;
	/* Of all records, once they were asked for; made under the mutex. */
	_Atomic(uint32_t *) lengths;
	pthread_mutex_t lengths_mutex;
};

struct segue_record {
	const struct segue_record_ops *ops;
};

/*
 * Where an index is kept between runs: the store in the server, memory in tests. `name` is a short
 * printable text.
 */
struct segue_index_keeper {
	void *arg;
	/* The bytes kept under `name`, malloc'd; SEGUE_ENOTFOUND. */
	int (*load)(void *arg, const char *name, void **bytes, size_t *size);
	int (*save)(void *arg, const char *name, const void *bytes, size_t size);
};

/* What a source is opened with, beside its spec. */
struct segue_source_means {
	const char *cache_dir; /* for what must be made anew to be read; made if need be */
	const struct segue_opener *opener; /* roots.h; may be NULL */
	const struct segue_index_keeper *keeper;
	segue_progress_fn *progress;
	void *arg;
	/*
	 * Of the data set that the stream was made with; NULL: it is made now. Data with another
	 * one are refused: they are opened to say how they differ, and nothing is kept of them.
	 */
	const uint64_t *fingerprint;
	const uint64_t *log; /* of a mix that is made now: the id that a log among its parts has */
};

/* Whether data that have this fingerprint are going to be the stream's. */
static inline bool segue_source_is_wanted(
	const struct segue_source_means *means, const uint64_t fingerprint[2])
{
	return !means->fingerprint ||
	       (means->fingerprint[0] == fingerprint[0] && means->fingerprint[1] == fingerprint[1]);
}

/* What a kind of source is made and asked by; its options are in core/spec_source.h. */
struct segue_source_driver {
	/*
	 * The spec, and what keeper and opener point to, must outlive the source. Long; reports
	 * progress. SEGUE_ESOURCE: what cannot be found or read; SEGUE_EDATA: what is damaged as a
	 * whole, an empty data set; SEGUE_ECHANGED: the data are not those whose index was kept.
	 */
	int (*open)(const struct segue_spec *spec, const struct segue_source_means *means,
		struct segue_source **out);
	/* Whether a reader may open all of it, which is all that is looked at. */
	int (*check)(const struct segue_spec *spec, const struct segue_opener *opener);
	/* Descriptors that it may have open, as far as the spec tells. */
	uint64_t (*descriptors)(const struct segue_spec *spec);
	/*
	 * Names what a source of this spec, whose data have this fingerprint, may have given the
	 * keeper. SEGUE_ENOMEM, what the keeper returns (but for SEGUE_ENOTFOUND), or what `visit`
	 * returned, if not 0, which ends it.
	 */
	int (*visit_kept)(const struct segue_spec *spec, const uint64_t fingerprint[2],
		const struct segue_index_keeper *keeper, int (*visit)(void *arg, const char *name),
		void *arg);
	/*
	 * Gives a spec from a stream's record what is not in that, but was kept; the data have this
	 * fingerprint. NULL: of a kind of which all is in it. SEGUE_ENOMEM, SEGUE_ESTORE, what the
	 * keeper returns.
	 */
	int (*recall)(struct segue_spec *spec, const uint64_t fingerprint[2],
		const struct segue_index_keeper *keeper);
	/* Its sequences are inserted: engine/live.h opens it, also for a mix; `open` is NULL. */
	bool live;
	/* It heeds shuffle and seed itself: records come in the order of their numbers. */
	bool orders;
};

/*
 * Admits a record (the operation), and decides about one that is damaged, by the spec's on_error:
 * SEGUE_SOURCE_SKIPPED, which is counted, or SEGUE_EDATA with the advice; and about one that is
 * longer than maximum_length, by on_too_long: the same, or its lengths are cut.
 */
int segue_source_admit(struct segue_source *source, uint64_t number, struct segue_record **out,
	struct segue_admitted *admitted);
/* The decision alone, of what an admission returned; nothing is counted. */
int segue_source_judge(const struct segue_source *source, int rc);

/*
 * What an admission asks of the steps that a record has, by maximum_length and pad. SEGUE_EMISFIT
 * names its first feature; SEGUE_ETOOLONG.
 */
int segue_source_check_steps(const struct segue_spec *spec, uint64_t steps);

/*
 * Lengths of all records (find_lengths) as they are delivered, cut, and 0 of what is passed over,
 * found once: valid as long as the source. Safe to call from several threads. SEGUE_ENOMEM, and
 * what the operation returns.
 */
int segue_source_lengths(
	struct segue_source *source, segue_progress_fn *progress, void *arg, const uint32_t **out);

/* Whether those are at hand: found before, or in the index. */
bool segue_source_has_lengths(const struct segue_source *source);

/* The part that all kinds have in common. Of the spec it takes what is passed over, and cut. */
void segue_source_base_init(struct segue_source *source, const struct segue_source_ops *ops,
	const struct segue_spec *spec);
void segue_source_base_finish(struct segue_source *source);

void segue_source_stats(const struct segue_source *source, struct segue_source_stats *stats);

#endif
