/* A filler: plan, records and slots of one feed. */
#include "engine/filler.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/barrier.h"
#include "core/error.h"
#include "core/list.h"
#include "lane/backlog.h"

/* Work that has no memory is done so often at once before the workers are told. */
enum { MEMORY_TRIES = 3 };

/* ---- Records ---- */

static void release_record(struct segue_record *record)
{
	if (record)
		record->ops->release(record);
}

/* A step that passes over whole epochs (tail = stop) admits more than it places. */
static int make_room(struct segue_filler *filler)
{
	size_t capacity = 2 * (size_t)filler->admitted_capacity;
	struct segue_filler_admitted *grown;

	if (filler->admitted_count < filler->admitted_capacity)
		return 0;
	grown = realloc(filler->admitted, capacity * sizeof(*grown));
	if (!grown)
		return segue_fail(SEGUE_ENOMEM, "no memory for %zu records", capacity);
	filler->admitted = grown;
	filler->admitted_capacity = (uint32_t)capacity;
	return 0;
}

/* Once each, though a try that is given up asks again: numbers rise. */
static void count_skipped(struct segue_filler *filler, uint64_t number)
{
	_Atomic uint64_t *skipped = &((struct segue_ring_header *)filler->ring.map)->skipped;

	if (number < filler->counted)
		return;
	filler->counted = number + 1;
	/*
	 * One writer, and nothing is ordered by it; pairs with segue_lane_skipped
	 * (client/lane.c)
	 */
	segue_store_release(skipped, segue_load_relaxed(skipped) + 1);
}

/* Admits what no try before has admitted. */
static int admit_next(struct segue_filler *filler, uint64_t number, uint64_t record)
{
	struct segue_filler_admitted next = {.number = number};
	int rc = make_room(filler);

	if (!rc)
		rc = segue_input_admit(&filler->input, record, &next.record,
			&next.lengths.array_steps, &next.lengths.total_length);
	if (rc == SEGUE_PLAN_SKIP) {
		count_skipped(filler, number);
		next.record = NULL;
	} else if (rc) {
		return rc;
	}
	filler->admitted[filler->admitted_count++] = next;
	return 0;
}

static int admit(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	struct segue_filler *filler = arg;

	if (filler->asked == filler->admitted_count) {
		int rc = admit_next(filler, number, record);
		if (rc)
			return rc;
	}
	const struct segue_filler_admitted *admitted = &filler->admitted[filler->asked++];
	assert(admitted->number == number);
	*array_steps = admitted->lengths.array_steps;
	*total_length = admitted->lengths.total_length;
	return admitted->record ? 0 : SEGUE_PLAN_SKIP;
}

static int look(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	struct segue_filler *filler = arg;
	int rc = segue_looked_ask(
		&filler->looked, &filler->input, number, record, array_steps, total_length);

	if (rc == SEGUE_PLAN_SKIP)
		count_skipped(filler, number);
	return rc;
}

static int longest(void *arg, uint64_t epoch, uint64_t *steps)
{
	return segue_input_longest(&((struct segue_filler *)arg)->input, epoch, steps);
}

static void drop_admitted(struct segue_filler *filler)
{
	for (uint32_t i = 0; i < filler->admitted_count; i++)
		release_record(filler->admitted[i].record);
	filler->admitted_count = 0;
	segue_looked_forget(&filler->looked);
}

/*
 * Moves the records to the rows of the new batch, and those parked behind them: handed on by the
 * row before, or admitted by this step; those whose sequence has ended are let go. Sequences are
 * admitted in the order of the rows that they come to, so one walk finds them all.
 */
static void move_records(struct segue_filler *filler, uint32_t count)
{
	uint32_t size = filler->geometry.places, at = 0;

	memset(filler->next_row, 0, size * sizeof(*filler->next_row));
	for (uint32_t i = 0; i < count; i++) {
		const struct segue_slot_span *span = &filler->spans[i];
		struct segue_record **from = NULL;
		filler->next_row[i].number = span->number;
		if (span->flags & SEGUE_SPAN_EMPTY)
			continue;
		if (span->previous_row != SEGUE_NO_ROW) {
			from = &filler->row[span->previous_row].record;
		} else {
			for (; filler->admitted[at].number != span->number; at++)
				assert(at + 1 < filler->admitted_count);
			from = &filler->admitted[at].record;
		}
		filler->next_row[i].record = *from;
		*from = NULL;
	}
	for (uint32_t i = 0; i < size; i++)
		release_record(filler->row[i].record);
	drop_admitted(filler);
	struct segue_filler_row *row = filler->row;
	filler->row = filler->next_row;
	filler->next_row = row;
}

/* ---- Slots ---- */

/* Steps of row i that its sequence has, and the batch. */
static uint64_t steps_of(const struct segue_filler *filler, uint32_t i)
{
	return filler->row[i].record ? segue_extent_steps(&filler->extent, &filler->spans[i]) : 0;
}

static int fill_row(struct segue_filler *filler, uint8_t *slot, uint32_t i)
{
	const struct segue_geometry *geometry = &filler->geometry;
	const struct segue_spec *spec = filler->spec;
	struct segue_record *record = filler->row[i].record;
	uint64_t room = filler->extent.steps, steps = steps_of(filler, i);
	int rc = 0;

	for (size_t f = 0; f < spec->sequence_count && !rc; f++) {
		uint64_t size = spec->sequences[f].size;
		if (spec->sequences[f].form != SEGUE_FORM_DENSE)
			continue;
		uint8_t *out = slot + geometry->sequence_offset[f] + i * room * size;
		if (steps)
			rc = record->ops->read(record, f, steps, out);
		memset(out + steps * size, 0, (room - steps) * size);
	}
	for (size_t f = 0; f < spec->context_count && !rc; f++) {
		uint64_t size = spec->contexts[f].size;
		if (spec->contexts[f].form != SEGUE_FORM_DENSE)
			continue;
		uint8_t *out = slot + geometry->context_offset[f] + i * size;
		if (record)
			rc = record->ops->context(record, f, out);
		else
			memset(out, 0, size);
	}
	return rc ? rc
		  : segue_initial_fill(
			    &filler->initial, spec, geometry, &filler->spans[i], i, record, slot);
}

/*
 * Sequence feature f, which is not dense, of all rows: they go on from one another, so that its
 * values lie side by side. Behind the end of a sequence steps have none.
 */
static int fill_ragged(struct segue_filler *filler, uint8_t *slot, uint32_t rows, size_t f,
	struct segue_sink *sink)
{
	uint64_t room = filler->extent.steps;
	int64_t *offsets = (int64_t *)(void *)(slot + filler->geometry.sequence_offset[f]);
	int64_t end = 0;
	int rc = 0;

	for (uint32_t i = 0; i < rows && !rc; i++, offsets += room + 1) {
		struct segue_record *record = filler->row[i].record;
		uint64_t steps = steps_of(filler, i);

		offsets[0] = end;
		if (steps)
			rc = record->ops->read_variable(record, f, steps, offsets, sink);
		end = offsets[steps];
		for (uint64_t k = steps + 1; k <= room; k++)
			offsets[k] = end;
	}
	return rc;
}

static int fill_ragged_context(struct segue_filler *filler, uint8_t *slot, uint32_t rows, size_t f,
	struct segue_sink *sink)
{
	int64_t *offsets = (int64_t *)(void *)(slot + filler->geometry.context_offset[f]);
	int rc = 0;

	offsets[0] = 0;
	for (uint32_t i = 0; i < rows && !rc; i++) {
		struct segue_record *record = filler->row[i].record;

		offsets[i + 1] = offsets[i];
		if (record)
			rc = record->ops->context_variable(record, f, offsets + i, sink);
	}
	return rc;
}

/* What is not dense, feature by feature, each from a multiple of 64 on in the slot's side. */
static int fill_side(struct segue_filler *filler, uint64_t step, uint8_t *slot, uint32_t rows)
{
	const struct segue_spec *spec = filler->spec;
	uint32_t number = (uint32_t)(step % filler->geometry.depth);
	struct segue_sink *sink = segue_sides_begin(&filler->sides, number);
	uint64_t *table = (uint64_t *)(void *)(slot + filler->geometry.side_offset), *begin = table;
	uint8_t *padding;
	int rc = 0;

	for (size_t i = 0; i < spec->sequence_count + spec->context_count && !rc; i++) {
		bool sequence = i < spec->sequence_count;
		size_t f = sequence ? i : i - spec->sequence_count;

		if ((sequence ? spec->sequences : spec->contexts)[f].form == SEGUE_FORM_DENSE)
			continue;
		rc = segue_sink_add(sink, -sink->size % SEGUE_ALIGN, &padding);
		*++begin = sink->size;
		if (!rc)
			rc = sequence ? fill_ragged(filler, slot, rows, f, sink)
				      : fill_ragged_context(filler, slot, rows, f, sink);
	}
	table[0] = sink->size ? filler->sides.of_slot[number].number : 0;
	return rc;
}

static void note_key(struct segue_filler *filler, uint32_t i)
{
	struct segue_record *record = filler->row[i].record;
	size_t size = 0;

	filler->keys[i] = (struct segue_feed_key){.offset = (uint32_t)filler->heap_used};
	if (record) {
		const char *key = record->ops->key(record, &size);
		memcpy(filler->heap + filler->heap_used, key, size);
	}
	filler->keys[i].size = (uint32_t)size;
	filler->heap_used += size;
}

static uint32_t part_of(const struct segue_filler *filler, uint32_t i)
{
	struct segue_source *source = filler->input.source;

	return source->ops->part && filler->row[i].record
		       ? source->ops->part(source, filler->spans[i].number)
		       : 0;
}

/* Batches that take in nothing new have seen what the one before has. */
static int note_seen(struct segue_filler *filler, struct segue_slot *slot)
{
	uint64_t seen = segue_backlog_seen(&filler->plan.spec, filler->plan.position);
	int rc = segue_input_see(&filler->input, seen, &filler->seen);

	slot->seen = filler->seen;
	return rc;
}

static int fill_slot(struct segue_filler *filler, uint32_t rows)
{
	uint64_t step = filler->plan.position->step - 1;
	struct segue_slot *slot = segue_ring_slot(filler->ring.map, &filler->geometry, step);
	uint8_t *base = (uint8_t *)slot;

	uint32_t count = segue_position_count(filler->plan.position);

	filler->heap_used = 0;
	for (uint32_t i = 0; i < count; i++) {
		int rc = i < rows ? fill_row(filler, base, i) : 0;
		if (rc)
			return rc;
		note_key(filler, i);
		filler->spans[i].part = part_of(filler, i);
		filler->spans[i].key_offset = filler->keys[i].offset;
		filler->spans[i].key_size = filler->keys[i].size;
	}
	int rc = filler->geometry.variable ? fill_side(filler, step, base, rows) : 0;
	for (uint32_t i = 0; i < rows && !rc; i++)
		if (filler->row[i].record)
			rc = segue_extent_go_on(&filler->extent, filler->spec, &filler->spans[i],
				filler->row[i].record);
	if (!rc)
		rc = note_seen(filler, slot);
	if (rc)
		return rc;
	slot->step = step;
	slot->rows = rows;
	slot->spans = count;
	slot->steps = filler->extent.steps;
	slot->valid = filler->extent.valid;
	uint32_t *previous = (uint32_t *)(base + filler->geometry.previous_offset);
	for (uint32_t i = 0; i < count; i++)
		previous[i] = filler->spans[i].previous_row;
	memcpy(base + filler->geometry.span_offset, filler->spans, count * sizeof(*filler->spans));
	memcpy(base + filler->geometry.heap_offset, filler->heap, filler->heap_used);
	return 0;
}

/* Decides the rows of batch `published` and opens their records: 1, 0 at the end, or a code. */
static int form_batch(struct segue_filler *filler)
{
	const struct segue_plan_input input = {filler, admit, longest, look};

	filler->asked = filler->looked.asked = 0;
	int rc = segue_plan_step(&filler->plan, &input, filler->spans, &filler->rows);
	if (rc <= 0) {
		/* What there is stays open until the rest is there, too: it is asked for again. */
		if (rc != SEGUE_ENOTYET)
			drop_admitted(filler);
		return rc;
	}
	move_records(filler, segue_position_count(filler->plan.position));
	filler->extent = segue_extent_of(filler->spec, filler->spans, filler->rows);
	filler->batch = SEGUE_FILLER_FORMED;
	return rc;
}

/* A slot is filled anew from where its segments begin. */
static int rewind_records(struct segue_filler *filler)
{
	int rc = 0;

	for (uint32_t i = 0; i < filler->rows && !rc; i++) {
		struct segue_record *record = filler->row[i].record;
		if (record)
			rc = record->ops->seek(record, filler->spans[i].first_step);
	}
	return rc;
}

/* What the rows that begin were left; may have to wait for it, and is then done anew. */
static int find_kept(struct segue_filler *filler)
{
	filler->initial.count = 0;
	for (uint32_t i = 0; i < filler->rows; i++) {
		struct segue_slot_span *span = &filler->spans[i];
		span->flags &= ~(uint32_t)SEGUE_SPAN_KEPT;
		if (filler->row[i].record && span->previous_row == SEGUE_NO_ROW)
			segue_initial_note(&filler->initial, i, filler->row[i].record);
	}
	return segue_initial_find(&filler->initial, &filler->feed, &filler->lock, filler->spans);
}

/* Makes batch `published` in its slot: 1, 0 at the end of the lane, or a negative code. */
static int make_batch(struct segue_filler *filler)
{
	int rc = filler->batch == SEGUE_FILLER_FORMED ? rewind_records(filler) : form_batch(filler);

	if (rc < 0 || filler->batch != SEGUE_FILLER_FORMED)
		return rc;
	rc = filler->spec->initial == SEGUE_INITIAL_KEPT ? find_kept(filler) : 0;
	if (!rc)
		rc = fill_slot(filler, filler->rows);
	if (rc)
		return rc;
	filler->batch = SEGUE_FILLER_FILLED;
	return 1;
}

/* ---- The task ---- */

/* Takes a way that the picture in filler.h has. With the lock. */
static void go(struct segue_filler *filler, enum segue_filler_state to)
{
	static const unsigned ways[] = {
		[SEGUE_FILLER_IDLE] = 1u << SEGUE_FILLER_RUNNING | 1u << SEGUE_FILLER_CLOSED,
		[SEGUE_FILLER_RUNNING] = 1u << SEGUE_FILLER_IDLE | 1u << SEGUE_FILLER_AGAIN |
					 1u << SEGUE_FILLER_CLOSING,
		[SEGUE_FILLER_AGAIN] = 1u << SEGUE_FILLER_RUNNING | 1u << SEGUE_FILLER_CLOSING,
		[SEGUE_FILLER_CLOSING] = 1u << SEGUE_FILLER_CLOSED,
		[SEGUE_FILLER_CLOSED] = 0,
	};

	assert(ways[filler->state] & 1u << to);
	filler->state = to;
}

/* Publishes what is filled, or fills. With the lock; lets it go while it fills. */
static int work_on_batch(struct segue_filler *filler)
{
	int rc;

	if (filler->batch == SEGUE_FILLER_FILLED) {
		rc = segue_feed_publish(&filler->feed, filler->plan.position, filler->keys,
			filler->heap, filler->heap_used);
		if (rc)
			return rc;
		filler->batch = SEGUE_FILLER_UNMADE;
		filler->steps_published += (uint64_t)filler->rows * filler->extent.steps;
		filler->valid_published += filler->extent.valid;
		return 0;
	}
	if (filler->ended) {
		filler->ended = false;
		rc = segue_plan_end(&filler->plan, filler->plan_spec.records);
		if (rc)
			return rc;
	}
	pthread_mutex_unlock(&filler->lock);
	rc = make_batch(filler);
	pthread_mutex_lock(&filler->lock);
	if (rc == 0)
		segue_feed_end(&filler->feed, filler->plan.position->undelivered);
	return rc < 0 ? rc : 0;
}

/* Whether to go on after work that has ended so. With the lock. */
static bool judge(struct segue_filler *filler, int rc)
{
	if (!rc) {
		filler->misses = 0;
		return true;
	}
	if (rc == SEGUE_ENOTYET)
		return false; /* a kick says that more is there */
	if (rc == SEGUE_EGONE) {
		filler->stalled = true; /* given up: the next server, or lease, goes on */
		return false;
	}
	if (rc == SEGUE_ENOMEM) {
		filler->misses += filler->misses <= MEMORY_TRIES;
		if (filler->misses != MEMORY_TRIES)
			return filler->misses < MEMORY_TRIES; /* else they have been told */
	}
	segue_feed_fail(&filler->feed, rc, segue_error_detail());
	return false;
}

/* True if the task should go on. With the lock. */
static bool work_once(struct segue_filler *filler)
{
	if (filler->state == SEGUE_FILLER_CLOSING || filler->stalled)
		return false;
	enum segue_feed_gate gate = segue_feed_gate(&filler->feed);
	segue_stopwatch_set(&filler->full, gate == SEGUE_FEED_FULL);
	switch (gate) {
	case SEGUE_FEED_GO:
		return judge(filler, work_on_batch(filler));
	case SEGUE_FEED_TAKE:
		return judge(filler, segue_feed_take(&filler->feed));
	case SEGUE_FEED_FULL:
		return !segue_feed_sleep(&filler->feed);
	case SEGUE_FEED_HELD: /* let_go kicks */
	case SEGUE_FEED_OVER:
		break;
	}
	return false;
}

/*
 * True, and unlocked: behind what waits for a thread (another lane, a checkpoint), which would wait
 * until the ring is full. The task is still RUNNING.
 */
static bool make_way(struct segue_filler *filler)
{
	if (!segue_pool_waits(filler->pool))
		return false;
	pthread_mutex_unlock(&filler->lock);
	segue_pool_run(filler->pool, &filler->task);
	return true;
}

static int run(struct segue_task *task)
{
	struct segue_filler *filler = SEGUE_CONTAINER(task, struct segue_filler, task);

	pthread_mutex_lock(&filler->lock);
	for (;;) {
		while (work_once(filler))
			if (filler->batch != SEGUE_FILLER_FILLED && make_way(filler))
				return 0;
		if (filler->state != SEGUE_FILLER_AGAIN)
			break;
		go(filler, SEGUE_FILLER_RUNNING);
	}
	bool closing = filler->state == SEGUE_FILLER_CLOSING;
	go(filler, closing ? SEGUE_FILLER_CLOSED : SEGUE_FILLER_IDLE);
	pthread_mutex_unlock(&filler->lock);
	if (closing)
		filler->closed(filler->closed_arg);
	return 0;
}

void segue_filler_kick(struct segue_filler *filler)
{
	pthread_mutex_lock(&filler->lock);
	bool start = filler->state == SEGUE_FILLER_IDLE;
	if (start)
		go(filler, SEGUE_FILLER_RUNNING);
	else if (filler->state == SEGUE_FILLER_RUNNING)
		go(filler, SEGUE_FILLER_AGAIN);
	pthread_mutex_unlock(&filler->lock);
	if (start)
		segue_pool_run(filler->pool, &filler->task);
}

void segue_filler_end(struct segue_filler *filler, uint64_t records)
{
	pthread_mutex_lock(&filler->lock);
	filler->plan_spec.records = records;
	filler->ended = true;
	pthread_mutex_unlock(&filler->lock);
	segue_filler_kick(filler);
}

struct segue_plan_spec segue_filler_plan(struct segue_filler *filler)
{
	pthread_mutex_lock(&filler->lock);
	struct segue_plan_spec plan = filler->plan_spec;
	pthread_mutex_unlock(&filler->lock);
	return plan;
}

void segue_filler_stall(struct segue_filler *filler, bool stalled)
{
	pthread_mutex_lock(&filler->lock);
	filler->stalled = stalled;
	segue_stopwatch_set(&filler->full, false);
	pthread_mutex_unlock(&filler->lock);
	if (!stalled)
		segue_filler_kick(filler);
}

void segue_filler_close(struct segue_filler *filler, void (*closed)(void *arg), void *arg)
{
	pthread_mutex_lock(&filler->lock);
	filler->closed = closed;
	filler->closed_arg = arg;
	bool now = filler->state == SEGUE_FILLER_IDLE;
	go(filler, now ? SEGUE_FILLER_CLOSED : SEGUE_FILLER_CLOSING);
	pthread_mutex_unlock(&filler->lock);
	if (now)
		closed(arg);
}

/* ---- Life ---- */

void segue_filler_destroy(struct segue_filler *filler)
{
	if (!filler)
		return;
	drop_admitted(filler);
	for (uint32_t i = 0; filler->row && i < filler->geometry.places; i++)
		release_record(filler->row[i].record);
	segue_feed_finish(&filler->feed);
	segue_plan_finish(&filler->plan);
	segue_shm_destroy(&filler->ring);
	segue_sides_finish(&filler->sides);
	segue_geometry_finish(&filler->geometry);
	pthread_mutex_destroy(&filler->lock);
	free(filler->row);
	free(filler->next_row);
	free(filler->admitted);
	segue_looked_finish(&filler->looked);
	segue_initial_finish(&filler->initial);
	free(filler->spans);
	free(filler->keys);
	free(filler->heap);
	free(filler);
}

static int open_row(struct segue_filler *filler, struct segue_image *image, uint32_t i)
{
	const struct segue_plan_row *row = &image->position->row[i];
	struct segue_filler_row *open = &filler->row[i];
	size_t size;

	int rc = segue_input_reopen(&filler->input, row, &open->record);
	if (rc)
		return rc;
	open->number = row->number;
	const char *key = open->record->ops->key(open->record, &size);
	rc = segue_image_set_key(image, i, key, (uint32_t)size);
	return rc ? rc
		  : open->record->ops->seek(
			    open->record, (row->segment + 1) * filler->geometry.num_unroll);
}

static int open_rows(struct segue_filler *filler, struct segue_image *image)
{
	for (uint32_t i = 0; i < image->live_count; i++) {
		int rc = open_row(filler, image, image->live[i]);
		if (rc)
			return rc;
	}
	for (uint32_t i = 0; i < segue_position_count(image->position); i++) {
		filler->keys[i] = (struct segue_feed_key){
			.offset = (uint32_t)filler->heap_used, .size = image->key[i].size};
		if (image->key[i].size)
			memcpy(filler->heap + filler->heap_used, image->key[i].bytes,
				image->key[i].size);
		filler->heap_used += image->key[i].size;
	}
	return 0;
}

static int allocate(struct segue_filler *filler)
{
	size_t rows = filler->geometry.places;

	/* Where a key begins in the heap is said in 32 bits. */
	if ((uint64_t)(rows - 1) * filler->key_max > UINT32_MAX)
		return segue_fail(SEGUE_ELIMIT,
			"batch_size = %zu with keys of up to %" PRIu32
			" bytes: the keys of a batch would take more than 4 GiB; give a smaller "
			"batch_size, and more lanes",
			rows, filler->key_max);
	filler->row = calloc(rows, sizeof(*filler->row));
	filler->next_row = calloc(rows, sizeof(*filler->next_row));
	filler->admitted = calloc(rows, sizeof(*filler->admitted));
	filler->admitted_capacity = (uint32_t)rows;
	filler->spans = calloc(rows, sizeof(*filler->spans));
	filler->keys = calloc(rows, sizeof(*filler->keys));
	filler->heap = malloc(rows * filler->key_max + 1);
	if (!filler->row || !filler->next_row || !filler->admitted || !filler->spans ||
		!filler->keys || !filler->heap)
		return segue_fail(SEGUE_ENOMEM, "no memory for a batch of %zu rows", rows);
	return 0;
}

static int make_ring(struct segue_filler *filler, const struct segue_image *image)
{
	int rc = segue_shm_create(
		"segue-ring", filler->geometry.ring_size, SEGUE_SHM_READ, &filler->ring);
	if (rc)
		return rc;
	struct segue_ring_header *ring = filler->ring.map;
	segue_segment_init(
		&ring->segment, SEGUE_SEGMENT_RING, filler->geometry.ring_size, &filler->geometry);
	return segue_feed_init(&filler->feed, ring, &filler->geometry, &filler->plan_spec,
		image->position, filler->keys, filler->heap, filler->heap_used);
}

int segue_filler_create(const struct segue_spec *spec, const struct segue_plan_spec *plan,
	struct segue_source *source, struct segue_pool *pool, struct segue_image *image,
	struct segue_filler **out)
{
	struct segue_filler *filler = calloc(1, sizeof(*filler));
	int rc;

	if (!filler)
		return segue_fail(SEGUE_ENOMEM, "no memory for a lane");
	filler->ring = SEGUE_SHM_NONE;
	filler->spec = spec;
	filler->input = (struct segue_input){source, spec, &filler->plan.spec, 0, 0};
	filler->pool = pool;
	filler->plan_spec = *plan;
	filler->key_max = source->ops->key_max(source);
	filler->task.work = run;
	pthread_mutex_init(&filler->lock, NULL);
	if ((rc = segue_sides_init(&filler->sides, spec->depth)) ||
		(rc = segue_geometry_init(spec, segue_plan_places(plan, image->position),
			 filler->key_max, &filler->geometry)) ||
		(rc = allocate(filler)) ||
		(rc = segue_initial_init(&filler->initial, spec, filler->geometry.places)) ||
		(rc = segue_plan_init(&filler->plan, plan)) ||
		(rc = segue_plan_seek(&filler->plan, image->position)) ||
		(rc = open_rows(filler, image)) || (rc = make_ring(filler, image))) {
		segue_filler_destroy(filler);
		return rc;
	}
	*out = filler;
	return 0;
}
