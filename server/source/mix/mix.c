/* The source that mixes others: which record of which part a number is. */
#include "source/mix/mix.h"

#include <endian.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/digest.h"
#include "core/error.h"
#include "lane/plan.h"
#include "source/files.h"
#include "source/mix/arrange.h"
#include "source/plain.h"

struct part {
	struct segue_spec spec;      /* that of the stream, with this part's source: owns nothing */
	struct segue_source *source; /* of a log, once it has joined */
	uint64_t records;            /* of a log SEGUE_PLAN_LIVE */
	uint64_t fingerprint[2];
};

#define NO_PART UINT32_MAX

struct source {
	struct segue_source base;
	const struct segue_spec *spec;
	struct segue_mix_shape shape;
	struct part part[SEGUE_PARTS_MAX];
	uint32_t log;           /* the part that is one, or NO_PART */
	uint64_t end;           /* numbers up to that of all others; UINT64_MAX: they have none */
	_Atomic uint64_t there; /* with a log: so many numbers were there when it was looked last */
	struct segue_index_keeper keeper;
	/* The block that was asked for last: the next is of it, too, as a rule. Under `mutex`. */
	pthread_mutex_t mutex;
	struct segue_mix_block block;
	const _Atomic bool *given_up; /* may be NULL */
};

static int within_part(int rc, const struct segue_spec *spec, size_t i)
{
	return segue_fail_within(rc, "part \"%s\"", spec->source.mix.part[i].name);
}

/* The stream's spec, of part `i` alone. */
static struct segue_spec spec_of(const struct segue_spec *spec, size_t i)
{
	struct segue_spec part = *spec;

	part.source = spec->source.mix.part[i].source;
	return part;
}

/* ---- Numbers ---- */

static uint64_t record_of(const struct source *source, const struct segue_mix_block *block,
	uint64_t number, uint32_t *part)
{
	*part = block->part[number % SEGUE_MIX_BLOCK];
	return segue_mix_record(&source->shape, *part,
		segue_mix_place(&source->shape, block, number), source->part[*part].records,
		source->spec->shuffle && *part != source->log);
}

static uint64_t find(struct source *source, uint64_t number, uint32_t *part)
{
	uint64_t record;

	pthread_mutex_lock(&source->mutex);
	if (source->block.number != number / SEGUE_MIX_BLOCK)
		segue_mix_arrange(&source->shape, number / SEGUE_MIX_BLOCK, &source->block);
	record = record_of(source, &source->block, number, part);
	pthread_mutex_unlock(&source->mutex);
	return record;
}

static struct segue_mix_log numbers_of(const struct source *source)
{
	return (struct segue_mix_log){source->shape, source->log, source->end};
}

static uint64_t there_now(const struct source *source)
{
	const struct segue_mix_log numbers = numbers_of(source);
	const struct segue_source *log = source->part[source->log].source;

	return log ? segue_mix_there(&numbers, log->ops->there(log)) : 0;
}

/* All of a mix with a log waits for that: mix/arrange.h. */
static bool is_there(struct source *source, uint64_t number)
{
	if (source->log == NO_PART || number < source->there)
		return true;
	source->there = there_now(source);
	return number < source->there;
}

static int source_admit(struct segue_source *base, uint64_t number, struct segue_record **out,
	struct segue_admitted *admitted)
{
	struct source *source = (struct source *)base;
	uint32_t i;

	if (!is_there(source, number))
		return segue_fail(
			SEGUE_ENOTYET, "sequence %" PRIu64 " is not inserted yet", number);
	uint64_t record = find(source, number, &i);
	struct segue_source *part = source->part[i].source;
	int rc = part->ops->admit(part, record, out, admitted);

	return rc ? within_part(rc, source->spec, i) : 0;
}

static uint32_t source_part(struct segue_source *base, uint64_t number)
{
	return segue_mix_part(&((struct source *)base)->shape, number);
}

static uint64_t source_records(const struct segue_source *base)
{
	const struct source *source = (const struct source *)base;

	if (source->log == NO_PART)
		return source->end;
	const struct segue_mix_log numbers = numbers_of(source);
	const struct segue_source *log = source->part[source->log].source;
	uint64_t inserted = log->ops->records(log);

	return inserted == SEGUE_PLAN_LIVE ? inserted : segue_mix_there(&numbers, inserted);
}

static uint32_t source_key_max(const struct segue_source *base)
{
	const struct source *source = (const struct source *)base;
	uint32_t most = 0;

	for (uint32_t i = 0; i < source->shape.count; i++) {
		const struct segue_source *part = source->part[i].source;
		uint32_t size = part->ops->key_max(part);

		most = size > most ? size : most;
	}
	return most;
}

/* ---- Lengths ---- */

static bool source_has_lengths(const struct segue_source *base)
{
	const struct source *source = (const struct source *)base;
	bool all = true;

	for (uint32_t i = 0; all && i < source->shape.count; i++)
		all = segue_source_has_lengths(source->part[i].source);
	return all;
}

static int source_find_lengths(
	struct segue_source *base, segue_progress_fn *progress, void *arg, uint32_t *lengths)
{
	const struct source *source = (const struct source *)base;
	const uint32_t *of_part[SEGUE_PARTS_MAX];
	struct segue_mix_block block;
	uint64_t records = source_records(base);
	int rc = 0;

	for (uint32_t i = 0; i < source->shape.count; i++) {
		struct segue_source *part = source->part[i].source;

		rc = segue_source_lengths(part, progress, arg, &of_part[i]);
		if (rc)
			return within_part(rc, source->spec, i);
	}
	for (uint64_t number = 0; !rc && number < records; number++) {
		uint64_t record;
		uint32_t part;

		if (number % SEGUE_MIX_BLOCK == 0) {
			segue_mix_arrange(&source->shape, number / SEGUE_MIX_BLOCK, &block);
			rc = segue_check_given_up(source->given_up);
		}
		record = record_of(source, &block, number, &part);
		lengths[number] = of_part[part][record];
	}
	return rc;
}

/* ---- What it is ---- */

static void fingerprint_of(const struct source *source, uint64_t fingerprint[2])
{
	struct segue_digest digest;

	segue_digest_init(&digest);
	segue_digest_text(&digest, "mix");
	for (uint32_t i = 0; i < source->shape.count; i++) {
		segue_digest_number(&digest, source->part[i].fingerprint[0]);
		segue_digest_number(&digest, source->part[i].fingerprint[1]);
	}
	segue_digest_finish(&digest, fingerprint);
}

static void source_stats(const struct segue_source *base, struct segue_source_stats *stats)
{
	const struct source *source = (const struct source *)base;

	for (uint32_t i = 0; i < source->shape.count; i++) {
		const struct segue_source *part = source->part[i].source;
		struct segue_source_stats of_part = {0};

		if (!part)
			continue;
		part->ops->stats(part, &of_part);
		stats->files += of_part.files;
		stats->bytes += of_part.bytes;
		stats->index_memory += of_part.index_memory;
		stats->descriptors += of_part.descriptors;
		stats->crc = of_part.crc;
	}
	stats->records = source->log == NO_PART ? source->end : there_now(source);
	stats->index_memory += sizeof(*source);
	fingerprint_of(source, stats->fingerprint);
}

/* Of each part the fingerprint, little-endian, kept under that of all. */
static void kept_name(const uint64_t fingerprint[2], char name[SEGUE_KEPT_NAME_SIZE])
{
	snprintf(name, SEGUE_KEPT_NAME_SIZE, "mix-%016" PRIx64 "%016" PRIx64, fingerprint[1],
		fingerprint[0]);
}

/* 0, and the fingerprints of `count` parts; or what the keeper returns: there may be none. */
static int load_kept(const struct segue_index_keeper *keeper, const uint64_t fingerprint[2],
	size_t count, uint64_t (*out)[2])
{
	char name[SEGUE_KEPT_NAME_SIZE];
	void *bytes;
	size_t size;
	int rc;

	kept_name(fingerprint, name);
	rc = keeper->load(keeper->arg, name, &bytes, &size);
	if (rc)
		return rc;
	if (size == count * sizeof(out[0]))
		memcpy(out, bytes, size);
	else
		rc = segue_fail(SEGUE_ENOTFOUND, "'%s' is of another mix", name);
	free(bytes);
	for (size_t i = 0; !rc && i < count; i++)
		for (size_t k = 0; k < 2; k++)
			out[i][k] = le64toh(out[i][k]);
	return rc;
}

static int keep(const struct source *source, const struct segue_source_means *means)
{
	uint64_t fingerprint[2], parts[SEGUE_PARTS_MAX][2];
	char name[SEGUE_KEPT_NAME_SIZE];
	size_t count = source->shape.count;
	int rc;

	fingerprint_of(source, fingerprint);
	if (!source->spec->persist || !segue_source_is_wanted(means, fingerprint))
		return 0;
	rc = load_kept(&source->keeper, fingerprint, count, parts);
	if (rc != SEGUE_ENOTFOUND)
		return rc;
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < 2; k++)
			parts[i][k] = htole64(source->part[i].fingerprint[k]);
	kept_name(fingerprint, name);
	return source->keeper.save(source->keeper.arg, name, parts, count * sizeof(parts[0]));
}

static int source_explain_change(const struct segue_source *base, const uint64_t fingerprint[2])
{
	const struct source *source = (const struct source *)base;
	uint64_t before[SEGUE_PARTS_MAX][2];
	int rc = load_kept(&source->keeper, fingerprint, source->shape.count, before);

	if (rc && rc != SEGUE_ENOTFOUND)
		return rc;
	for (uint32_t i = 0; !rc && i < source->shape.count; i++) {
		const struct segue_source *part = source->part[i].source;

		if (memcmp(before[i], source->part[i].fingerprint, sizeof(before[i])) == 0)
			continue;
		return within_part(part->ops->explain_change(part, before[i]), source->spec, i);
	}
	return segue_fail(SEGUE_ECHANGED, "the data of a part are others" SEGUE_CHANGED_ADVICE);
}

static void source_destroy(struct segue_source *base)
{
	struct source *source = (struct source *)base;

	for (uint32_t i = 0; i < source->shape.count; i++)
		if (source->part[i].source)
			source->part[i].source->ops->destroy(source->part[i].source);
	pthread_mutex_destroy(&source->mutex);
	segue_source_base_finish(&source->base);
	free(source);
}

/* ---- A log among the parts ---- */

static int source_hash(struct segue_source *base, uint64_t count, uint64_t hash[2])
{
	struct source *source = (struct source *)base;
	const struct segue_mix_log numbers = numbers_of(source);
	struct segue_source *log = source->part[source->log].source;

	return log->ops->hash(log, segue_mix_inserted(&numbers, count), hash);
}

static void source_log(
	const struct segue_source *base, uint64_t id[2], struct segue_mix_log *numbers)
{
	const struct source *source = (const struct source *)base;

	memcpy(id, source->part[source->log].fingerprint, sizeof(source->part[0].fingerprint));
	*numbers = numbers_of(source);
}

static void source_join(struct segue_source *base, struct segue_source *log)
{
	struct source *source = (struct source *)base;

	source->part[source->log].source = log;
}

#define OPS                                                                                        \
	.records = source_records, .part = source_part, .key_max = source_key_max,                 \
	.admit = source_admit, .find_lengths = source_find_lengths,                                \
	.has_lengths = source_has_lengths, .stats = source_stats,                                  \
	.explain_change = source_explain_change, .destroy = source_destroy

static const struct segue_source_ops source_ops = {OPS};
static const struct segue_source_ops ops_with_log = {
	OPS, .hash = source_hash, .log = source_log, .join = source_join};

/* ---- The driver ---- */

/* Why nothing can be said of a part of a stream that was made. */
static int fail_unkept(int rc)
{
	return rc == SEGUE_ENOTFOUND
		       ? segue_fail(SEGUE_ESTORE,
				 "what the store keeps of the data set is damaged: restore a "
				 "backup, or give the stream another name")
		       : rc;
}

/* It is opened elsewhere: here it has its id alone. */
static void expect_log(struct source *source, uint32_t i, const uint64_t id[2])
{
	source->log = i;
	source->base.ops = &ops_with_log;
	source->part[i].records = SEGUE_PLAN_LIVE;
	memcpy(source->part[i].fingerprint, id, sizeof(source->part[i].fingerprint));
}

/* `fingerprint`: of the part that the stream was made with; NULL: it is made now. */
static int open_part(struct source *source, uint32_t i, const struct segue_source_means *of_mix,
	const uint64_t *fingerprint)
{
	struct part *part = &source->part[i];
	struct segue_source_means means = *of_mix;
	struct segue_source_stats stats = {0};
	int rc;

	part->spec = spec_of(source->spec, i);
	means.fingerprint = fingerprint;
	if (segue_source_plain_driver(&part->spec)->live) {
		if (!fingerprint && of_mix->fingerprint)
			return within_part(fail_unkept(SEGUE_ENOTFOUND), source->spec, i);
		expect_log(source, i, fingerprint ? fingerprint : of_mix->log);
		return 0;
	}
	rc = segue_source_plain_driver(&part->spec)->open(&part->spec, &means, &part->source);
	if (rc)
		return within_part(rc, source->spec, i);
	part->records = part->source->ops->records(part->source);
	part->source->ops->stats(part->source, &stats);
	memcpy(part->fingerprint, stats.fingerprint, sizeof(part->fingerprint));
	return 0;
}

static int open_parts(struct source *source, const struct segue_source_means *means)
{
	uint64_t made[SEGUE_PARTS_MAX][2];
	bool known = false;
	int rc = 0;

	if (means->fingerprint) {
		rc = load_kept(means->keeper, means->fingerprint, source->shape.count, made);
		known = !rc;
		rc = rc == SEGUE_ENOTFOUND ? 0 : rc;
	}
	for (uint32_t i = 0; !rc && i < source->shape.count; i++)
		rc = open_part(source, i, means, known ? made[i] : NULL);
	return rc;
}

/* The numbers up to where a part, other than a log, would give more than all its passes have. */
static int find_end(struct source *source)
{
	source->end = UINT64_MAX;
	for (uint32_t i = 0; i < source->shape.count; i++) {
		uint64_t epochs = source->spec->source.mix.part[i].epochs, places, end;

		if (epochs == 0 || i == source->log)
			continue;
		if (__builtin_mul_overflow(epochs, source->part[i].records, &places) ||
			places >= SEGUE_MIX_PLACES)
			return within_part(
				segue_fail(SEGUE_EINVAL,
					"%" PRIu64 " epochs of %" PRIu64
					" records are more sequences than a mix can number: give "
					"it fewer, or none where another part has an end",
					epochs, source->part[i].records),
				source->spec, i);
		end = segue_mix_number(&source->shape, i, places);
		source->end = end < source->end ? end : source->end;
	}
	return 0;
}

static int source_open(const struct segue_spec *spec, const struct segue_source_means *means,
	struct segue_source **out)
{
	struct source *source = calloc(1, sizeof(*source));
	int rc;

	if (!source)
		return segue_fail(SEGUE_ENOMEM, "no memory for a source");
	segue_source_base_init(&source->base, &source_ops, spec);
	source->spec = spec;
	source->log = NO_PART;
	source->keeper = *means->keeper;
	source->given_up = means->opener ? means->opener->given_up : NULL;
	segue_mix_shape_init(&source->shape, &spec->source.mix, spec->seed);
	segue_mix_arrange(&source->shape, 0, &source->block);
	pthread_mutex_init(&source->mutex, NULL);
	rc = open_parts(source, means);
	if (!rc)
		rc = find_end(source);
	if (!rc)
		rc = keep(source, means);
	if (rc)
		source_destroy(&source->base);
	else
		*out = &source->base;
	return rc;
}

static int source_check(const struct segue_spec *spec, const struct segue_opener *opener)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < spec->source.mix.count; i++) {
		const struct segue_spec part = spec_of(spec, i);

		rc = segue_source_plain_driver(&part)->check(&part, opener);
		if (rc)
			within_part(rc, spec, i);
	}
	return rc;
}

static uint64_t source_descriptors(const struct segue_spec *spec)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < spec->source.mix.count; i++) {
		const struct segue_spec part = spec_of(spec, i);

		sum += segue_source_plain_driver(&part)->descriptors(&part);
	}
	return sum;
}

static int visit_kept(const struct segue_spec *spec, const uint64_t fingerprint[2],
	const struct segue_index_keeper *keeper, int (*visit)(void *arg, const char *name),
	void *arg)
{
	uint64_t parts[SEGUE_PARTS_MAX][2];
	char name[SEGUE_KEPT_NAME_SIZE];
	int rc = load_kept(keeper, fingerprint, spec->source.mix.count, parts);

	if (rc)
		return rc == SEGUE_ENOTFOUND ? 0 : rc;
	kept_name(fingerprint, name);
	rc = visit(arg, name);
	for (size_t i = 0; !rc && i < spec->source.mix.count; i++) {
		const struct segue_spec part = spec_of(spec, i);

		rc = segue_source_plain_driver(&part)->visit_kept(
			&part, parts[i], keeper, visit, arg);
	}
	return rc;
}

/* The parts' own, each by its kind. */
static int recall(struct segue_spec *spec, const uint64_t fingerprint[2],
	const struct segue_index_keeper *keeper)
{
	uint64_t parts[SEGUE_PARTS_MAX][2];
	int kept = load_kept(keeper, fingerprint, spec->source.mix.count, parts);

	for (size_t i = 0; i < spec->source.mix.count; i++) {
		struct segue_spec part = spec_of(spec, i);
		const struct segue_source_driver *driver = segue_source_plain_driver(&part);

		if (!driver->recall)
			continue;
		int rc = kept ? fail_unkept(kept) : driver->recall(&part, parts[i], keeper);
		spec->source.mix.part[i].source = part.source;
		if (rc)
			return within_part(rc, spec, i);
	}
	return 0;
}

const struct segue_source_driver segue_source_mix = {
	.open = source_open,
	.check = source_check,
	.descriptors = source_descriptors,
	.visit_kept = visit_kept,
	.recall = recall,
	.orders = true,
};
