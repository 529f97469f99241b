/* The server of a run: control, committer and loaders around the files under test. */
#include "driver.h"

#include <string.h>

#include "core/barrier.h"
#include "lane/carry.h"
#include "lane/image.h"
#include "disk.h"
#include "core/error.h"
#include "engine/filler.h"
#include "follower.h"
#include "oracle.h"
#include "os/pool.h"
#include "engine/snapshot.h"

#define CANDIDATES 8

/* A lease in force: grant.h. */
struct sim_grant {
	uint32_t pair;
	struct segue_filler *filler;
	bool joined;       /* it is another grant's, too: it is left, not destroyed */
	struct feed *feed; /* control's, once it is in force */
	struct segue_carry carry;
	struct segue_shm carry_shm, page_shm;
	struct segue_lane_record record;
	struct sim_following following;
	bool stalled; /* told that the disk is full; the committer's */

	/* With the server's lock. */
	bool finishing; /* the lease is over: its last commit goes to disk */
	bool held;      /* ... but the holder may go on with the next server */
	bool finished;  /* ... and is there */
	bool left;      /* ... its feed is another's, or is being closed; control's */
	bool closed;    /* ... and nobody is at work in it for this grant */

	/* The committer's. */
	struct segue_account account;
	struct segue_image *image; /* in the transaction under way, or the last one */
};

/* One in force, of a lane: stream/feeds.h. Control's. */
struct feed {
	struct feed *next;
	struct segue_filler *filler;
	unsigned uses; /* by grants, and by those that are being made */
	bool alone;    /* its group was left behind: nobody else joins it */
};

/* A grant on its way: its feed is found on a loader thread, then it goes to disk. */
struct making {
	struct segue_task task;
	struct sim_driver *driver;
	uint32_t pair;
	struct segue_plan_spec plan; /* as far as the stream has grown */
	struct feed *candidate[CANDIDATES];
	struct sim_grant *grant;
	struct sim_request *request;
	uint64_t serial;
	const struct sim_kept *kept; /* OFFER */
	struct segue_image *image;   /* where the lane goes on */
	bool rewinds;                /* RESTORE, where rows begin with what was kept */
	uint64_t line;               /* ... the generation that it goes back to */
	struct segue_image *before;  /* mutant size_not_durable: what is stored of it */
	struct segue_account account;
	struct segue_lane_record record;
	bool built, done; /* with the server's lock */
	int rc;
};

/* One (lane, group). */
struct place {
	pthread_mutex_t *lock; /* of the server */
	struct sim_event *control;
	struct segue_lease lease;
	struct sim_grant *grant;
	struct making *making;
	int64_t process; /* that it is, or is being, granted to */
	bool rung;
	bool apart;                /* its feed was opened where others had one */
	bool cut;                  /* the connection is lost, and that is not told yet */
	struct sim_request *taker; /* ended the last lease for itself: it comes first */
	uint64_t taker_serial;
	struct segue_shm last_carry; /* mutant carry_reused */
};

struct segue_pool {
	pthread_mutex_t lock;
	struct segue_task *tasks, **last;
	struct sim_event event;
};

struct sim_driver {
	struct sim_server *server;
	pthread_mutex_t lock;
	struct place place[SIM_PAIRS];
	struct sim_event committer_event;
	struct segue_group_commit group;
	struct segue_pool pool;
	struct feed *feeds[SIM_LANES]; /* control's */
	bool share, follow;
	uint32_t ends; /* of the input, that the stream has: control's */
	struct sim_growth {
		bool wanted, done; /* with the server's lock */
		uint32_t ends;
		int rc;
	} growth;
	int64_t interval;
	int64_t lease_timeout; /* 0: none */
	int64_t grace;         /* of reservations for holders that cannot be looked up */
};

static struct sim_lane_truth *truth_of(uint32_t pair)
{
	return &sim_world.truth[pair];
}

/* The lane's plan, as far as the stream has grown. */
static struct segue_plan_spec plan_of(const struct sim_driver *driver, uint32_t pair)
{
	struct segue_plan_spec plan = truth_of(pair)->plan;

	plan.ends.count = driver->ends;
	return plan;
}

/* ---- Host: clock, shared memory, loader threads --------------------------------------------- */

/* What is measured with it is for people to look at: it stands still. */
int64_t segue_now_ns(void)
{
	return 1;
}

int segue_shm_create(
	const char *label, size_t size, enum segue_shm_access access, struct segue_shm *out)
{
	char *bytes = calloc(1, size + SEGUE_LINE);

	(void)label;
	(void)access;
	bytes += SEGUE_LINE - (uintptr_t)bytes % SEGUE_LINE;
	*out = (struct segue_shm){.fd = 0, .size = size, .map = bytes};
	return 0;
}

/* Workers may have it mapped: it stays until the run ends. */
void segue_shm_destroy(struct segue_shm *shm)
{
	*shm = SEGUE_SHM_NONE;
}

int segue_shm_read(const struct segue_shm *shm, uint64_t offset, void *out, size_t size)
{
	/* Only where states lie is it worth while to be slow. */
	size_t end = sim_world.geometry[SIM_ROWS].state_offset[1] + SIM_ROWS * 2 * sizeof(uint64_t);
	size_t slow = size < end ? size : end;

	if (sim_one_in(8))
		sim_stop(sim_now() + sim_below(1500));
	sim_copy_slowly(out, (uint8_t *)shm->map + offset, slow);
	memcpy((uint8_t *)out + slow, (uint8_t *)shm->map + offset + slow, size - slow);
	return 0;
}

void segue_pool_run(struct segue_pool *pool, struct segue_task *task)
{
	pthread_mutex_lock(&pool->lock);
	task->next = NULL;
	*pool->last = task;
	pool->last = &task->next;
	pthread_mutex_unlock(&pool->lock);
	sim_event_ring(&pool->event);
}

bool segue_pool_waits(struct segue_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	bool waits = pool->tasks != NULL;
	pthread_mutex_unlock(&pool->lock);
	return waits;
}

static struct segue_task *next_task(struct segue_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	struct segue_task *task = pool->tasks;
	if (task) {
		pool->tasks = task->next;
		if (!pool->tasks)
			pool->last = &pool->tasks;
	}
	pthread_mutex_unlock(&pool->lock);
	return task;
}

static void run_loader(void *arg)
{
	struct segue_pool *pool = arg;

	for (;;) {
		struct segue_task *task = next_task(pool);
		if (task)
			task->work(task);
		else
			sim_event_wait(&pool->event, SIM_NEVER);
	}
}

/* ---- The committer -------------------------------------------------------------------------- */

static bool owes(struct sim_grant *grant)
{
	pthread_mutex_lock(&grant->filler->lock);
	bool sound = segue_carry_observe(&grant->carry, grant->filler->feed.published);
	uint64_t committed = grant->carry.committed;
	pthread_mutex_unlock(&grant->filler->lock);
	sim_check(sound, "broken", "pair %u: an honest worker's words are refused", grant->pair);
	return committed > grant->account.durable;
}

/* The mutant that takes the newest position there is. */
static void misplace(const struct sim_grant *grant, struct segue_image *image)
{
	const struct segue_feed *feed = &grant->filler->feed;
	const struct segue_feed_entry *entry = segue_feed_entry(feed, feed->published);

	if (SEGUE_MUTANT(token_fillers_position) &&
		segue_position_count(entry->position) <= segue_position_count(image->position) &&
		segue_position_entries(entry->position) <= segue_position_entries(image->position))
		memcpy(image->position, entry->position,
			segue_position_size(segue_position_entries(entry->position)));
}

static void take_image(struct sim_grant *grant)
{
	/* What had been committed when the lease ended. */
	uint64_t least = atomic_load(&grant->carry.words->committed), committed;

	int rc = segue_snapshot(
		grant->filler, &grant->carry, SEGUE_NEVER, &committed, &grant->image);
	sim_check(rc == 0, "snapshot", "pair %u: %s", grant->pair, segue_error_detail());
	sim_check(committed >= least, "lost", "pair %u: %llu committed, %llu seen", grant->pair,
		(unsigned long long)least, (unsigned long long)committed);
	misplace(grant, grant->image);
}

static void add_finals(struct sim_ops *ops, const struct sim_grant *grant, uint64_t below)
{
	pthread_mutex_lock(&grant->filler->lock);
	for (const struct segue_kept *kept = grant->carry.kept; kept && kept->step < below;
		kept = kept->next)
		sim_ops_final(
			ops, grant->pair, kept->number, kept->key, kept->key_size, kept->states);
	pthread_mutex_unlock(&grant->filler->lock);
}

/* What a lease in force owes. */
static void add_grant(struct sim_ops *ops, struct sim_grant *grant, bool finishing)
{
	if (!grant->image && (finishing || owes(grant)))
		take_image(grant);
	if (!grant->image)
		return;
	grant->record.held = !finishing || grant->held;
	sim_ops_lane(ops, grant->pair, &grant->record, grant->image->position);
	sim_ops_rows(ops, grant->pair, grant->image, &grant->account);
	add_finals(ops, grant, grant->image->position->step);
}

static void add_making(struct sim_ops *ops, uint32_t pair, struct making *making)
{
	const struct segue_image *image = making->before ? making->before : making->image;

	sim_ops_lane(ops, pair, &making->record, image->position);
	sim_ops_rows(ops, pair, image, &making->account);
	if (making->rewinds && !SEGUE_MUTANT(kept_not_undone))
		sim_ops_rewind(ops, pair, making->line, image->position->step);
	for (const struct sim_kept *kept = making->kept; kept; kept = kept->next)
		if (kept->step >= making->account.durable)
			sim_ops_final(ops, pair, kept->number, kept->key, kept->key_size,
				(const uint8_t *)&kept->states);
}

static void settle(struct sim_grant *grant)
{
	segue_account_settle(&grant->account, grant->image);
	pthread_mutex_lock(&grant->filler->lock);
	segue_carry_forget(&grant->carry, grant->account.durable);
	segue_carry_set_durable(&grant->carry, grant->account.durable);
	pthread_mutex_unlock(&grant->filler->lock);
}

/* A grant's part of a transaction has ended. A last image waits for the next one if it must. */
static void conclude_grant(
	struct sim_driver *driver, struct sim_grant *grant, bool finishing, int rc)
{
	if (!grant->image)
		return;
	if (rc == 0)
		settle(grant);
	if (rc && finishing)
		return;
	segue_image_destroy(grant->image);
	grant->image = NULL;
	if (!finishing)
		return;
	pthread_mutex_lock(&driver->lock);
	grant->finished = true;
	pthread_mutex_unlock(&driver->lock);
	sim_event_ring(&driver->server->control);
}

/* Storage failed, or (rc 0) works again. */
static void tell_storage(struct sim_grant *grant, int rc)
{
	if (rc == 0 && !grant->stalled)
		return;
	grant->stalled = rc != 0;
	pthread_mutex_lock(&grant->filler->lock);
	segue_carry_storage_failed(&grant->carry, rc, rc ? segue_error_detail() : "");
	segue_feed_ring(&grant->filler->feed);
	pthread_mutex_unlock(&grant->filler->lock);
	segue_filler_stall(grant->filler, rc != 0);
}

struct entry {
	struct sim_grant *grant;
	struct making *making;
	bool finishing;
};

static void collect(struct sim_driver *driver, struct entry entries[SIM_PAIRS])
{
	pthread_mutex_lock(&driver->lock);
	for (uint32_t pair = 0; pair < sim_world.pairs; pair++) {
		const struct place *place = &driver->place[pair];
		struct sim_grant *grant = place->grant;
		struct making *making = place->making;
		entries[pair] = (struct entry){
			.grant = grant && !grant->finished ? grant : NULL,
			.making = making && making->built && !making->done ? making : NULL,
			.finishing = grant && grant->finishing,
		};
	}
	pthread_mutex_unlock(&driver->lock);
}

static void conclude(struct sim_driver *driver, const struct entry *entry, int rc)
{
	if (entry->grant)
		tell_storage(entry->grant, rc);
	if (entry->grant)
		conclude_grant(driver, entry->grant, entry->finishing, rc);
	/* A full disk: asked for again, or refused and asked for again by the worker. */
	if (!entry->making || (rc == SEGUE_ENOSPACE && sim_one_in(2)))
		return;
	pthread_mutex_lock(&driver->lock);
	entry->making->done = true;
	entry->making->rc = rc;
	pthread_mutex_unlock(&driver->lock);
	sim_event_ring(&driver->server->control);
}

static void conclude_growth(struct sim_driver *driver, int rc)
{
	pthread_mutex_lock(&driver->lock);
	driver->growth.rc = rc;
	driver->growth.done = true;
	pthread_mutex_unlock(&driver->lock);
	sim_event_ring(&driver->server->control);
}

static void transact(struct sim_driver *driver)
{
	struct entry entries[SIM_PAIRS];
	struct sim_ops ops = {0};
	int rc = 0;

	collect(driver, entries);
	pthread_mutex_lock(&driver->lock);
	bool grows = driver->growth.wanted && !driver->growth.done;
	pthread_mutex_unlock(&driver->lock);
	if (grows)
		sim_ops_grow(&ops, driver->growth.ends);
	for (uint32_t pair = 0; pair < sim_world.pairs; pair++) {
		if (entries[pair].grant)
			add_grant(&ops, entries[pair].grant, entries[pair].finishing);
		if (entries[pair].making)
			add_making(&ops, pair, entries[pair].making);
	}
	if (ops.count && segue_group_commit_begin(&driver->group)) {
		rc = sim_disk_apply(&ops);
		segue_group_commit_ended(&driver->group, rc);
		for (uint32_t pair = 0; pair < sim_world.pairs; pair++)
			conclude(driver, &entries[pair], rc);
		if (grows)
			conclude_growth(driver, rc);
		if (driver->group.state == SEGUE_GROUP_COMMIT_STOPPED)
			sim_storage_failed();
	} else if (
		!ops.count) { /* nothing is owed: let those go on that were told of a full disk */
		for (uint32_t pair = 0; pair < sim_world.pairs; pair++)
			if (entries[pair].grant)
				tell_storage(entries[pair].grant, 0);
	}
	sim_ops_finish(&ops);
}

static void run_committer(void *arg)
{
	struct sim_driver *driver = arg;

	while (driver->group.state != SEGUE_GROUP_COMMIT_STOPPED) {
		sim_event_wait(&driver->committer_event, sim_now() + driver->interval);
		transact(driver);
	}
	sim_event_wait(&driver->committer_event, SIM_NEVER);
}

/* ---- Control: where a grant begins ---------------------------------------------------------- */

static int admit_length(
	void *arg, uint64_t number, uint64_t record, uint64_t *array_steps, uint64_t *total_length)
{
	(void)arg;
	(void)number;
	*array_steps = *total_length = sim_world.length[record];
	return sim_world.length[record] ? 0 : SEGUE_PLAN_SKIP;
}

static int longest_length(void *arg, uint64_t epoch, uint64_t *steps)
{
	return segue_plan_longest(arg, epoch, sim_world.length, steps);
}

static bool was_kept(const struct sim_kept *kept, uint64_t step, uint64_t number)
{
	while (kept && (kept->step != step || kept->number != number))
		kept = kept->next;
	return kept != NULL;
}

static bool ended_are_kept(const struct segue_plan_spec *plan,
	const struct segue_position *position, const struct sim_kept *kept)
{
	for (uint32_t row = 0; row < position->rows; row++)
		if (position->row[row].number != SEGUE_NO_SEQUENCE &&
			!segue_plan_row_lives(plan, &position->row[row]) &&
			!was_kept(kept, position->step - 1, position->row[row].number))
			return false;
	return true;
}

/* Steps the plan from the stored position to the offered one. */
static struct segue_image *offered_image(const struct sim_driver *driver, uint32_t pair,
	const struct sim_request *request, const struct segue_image *stored)
{
	struct segue_plan_spec spec = plan_of(driver, pair);
	const struct segue_plan_input input = {&spec, admit_length, longest_length};
	struct segue_slot_span spans[SIM_ROWS];
	struct segue_plan plan;
	uint32_t rows;
	int rc = segue_plan_init(&plan, &spec);

	rc = rc ? rc : segue_plan_seek(&plan, stored->position);
	sim_check(rc == 0, "offer", "pair %u: %s", pair, segue_error_detail());
	while (plan.position->step < request->step) {
		rc = segue_plan_step(&plan, &input, spans, &rows);
		sim_check(rc == 1, "offer", "pair %u: step %llu is beyond the end", pair,
			(unsigned long long)request->step);
		sim_check(ended_are_kept(&spec, plan.position, request->kept), "offer",
			"pair %u: a row that ended in batch %llu is missing", pair,
			(unsigned long long)plan.position->step - 1);
	}
	struct segue_image *image = segue_image_create(&spec, plan.position, stored->row_size);
	for (uint32_t row = 0; row < segue_position_count(plan.position); row++)
		memcpy(image->states + row * image->row_size, &request->states[row],
			image->row_size);
	segue_plan_finish(&plan);
	return image;
}

static void check_kept(const struct sim_request *request)
{
	for (const struct sim_kept *kept = request->kept; kept; kept = kept->next)
		sim_check(kept->step < request->step, "offer",
			"pair %u: a row of batch %llu is offered with step %llu", request->pair,
			(unsigned long long)kept->step, (unsigned long long)request->step);
}

static struct segue_image *copy_image(uint32_t pair, const struct segue_image *from)
{
	uint64_t row_size = sim_world.words * sizeof(uint64_t);
	struct segue_image *image =
		segue_image_create(&truth_of(pair)->plan, from ? from->position : NULL, row_size);

	if (from)
		memcpy(image->states, from->states,
			segue_position_count(from->position) * row_size);
	return image;
}

/* As the real filler does: a live row's key is its record's. */
static void name_rows(uint32_t pair, struct segue_image *image)
{
	char key[SIM_KEY_MAX];

	for (uint32_t i = 0; i < image->live_count; i++) {
		uint32_t row = image->live[i];
		uint64_t record =
			segue_plan_record(&truth_of(pair)->plan, image->position->row[row].number);
		segue_image_set_key(image, row, key, sim_world_key(record, key));
	}
}

static uint64_t stored_step(uint32_t pair)
{
	const struct segue_position *position = sim_disk.lane[pair].record.position;

	return position ? position->step : 0;
}

/* As resize() in engine/grant.c. */
static void resize(uint32_t pair, const struct sim_request *request, struct making *making)
{
	const struct segue_plan_spec *plan = &truth_of(pair)->plan;
	struct segue_image *sized = making->image;

	if (request->step != sized->position->step) {
		making->rc = SEGUE_EFENCED;
		return;
	}
	if (SEGUE_MUTANT(size_not_durable)) {
		making->before = sized;
		making->image = sized = copy_image(pair, sized);
	}
	int rc = segue_plan_set_batch_size(plan, sized->position, request->batch_size);
	sim_check(rc == 0, "size", "pair %u: %s", pair, segue_error_detail());
}

static int build(struct segue_task *task);
static void add_candidates(struct sim_driver *driver, struct making *making);

static void make_grant(struct sim_driver *driver, uint32_t pair, struct sim_request *request)
{
	struct place *place = &driver->place[pair];
	struct segue_image *stored = sim_disk_image(pair);
	struct making *making = calloc(1, sizeof(*making));
	struct sim_line parent = {pair, sim_disk.lane[pair].record.generation};
	bool rollback = false;

	making->driver = driver;
	making->pair = pair;
	making->plan = plan_of(driver, pair);
	making->request = request;
	making->serial = request->serial;
	segue_account_init(&making->account, SIM_ROWS);
	segue_account_settle(&making->account, stored);
	making->image = stored;
	if (request->mode == SEGUE_ATTACH_OFFER) {
		check_kept(request);
		making->image = offered_image(driver, pair, request, stored);
		making->kept = request->kept;
		parent.generation = request->generation;
	} else if (request->mode == SEGUE_ATTACH_RESTORE) {
		making->image = copy_image(pair, request->restore->image);
		parent = (struct sim_line){request->restore->pair, request->restore->generation};
		rollback = true;
		if (sim_world.spec.initial == SEGUE_INITIAL_KEPT)
			making->rewinds = true;
		making->line = parent.generation;
	}
	if (request->sizes)
		resize(pair, request, making);
	if (making->image != stored && making->before != stored)
		segue_image_destroy(stored);
	name_rows(pair, making->image);
	making->record = (struct segue_lane_record){
		.generation = place->lease.generation,
		.held = true,
		.holder = place->lease.holder,
	};
	memcpy(making->record.token, place->lease.token, SEGUE_TOKEN_BYTES);
	sim_oracle_granted(pair, place->lease.generation, parent, making->image->position->step,
		rollback, (struct sim_owner){request->owner, place->process});
	request->granting = true;
	making->done = making->rc != 0; /* refused */
	add_candidates(driver, making);
	pthread_mutex_lock(&driver->lock);
	place->making = making;
	pthread_mutex_unlock(&driver->lock);
	making->task.work = build;
	if (making->done)
		sim_event_ring(&driver->server->control);
	else
		segue_pool_run(&driver->pool, &making->task);
}

/* ---- Control: grants in force --------------------------------------------------------------- */

static int read_carry(void *arg, uint64_t offset, void *out, size_t size)
{
	return segue_shm_read(arg, offset, out, size);
}

/* As segue_keeping_load(): the highest number of the key in the lane. */
static int load_kept(void *arg, const char *key, size_t size, struct segue_initials_found *found)
{
	const uint32_t pair = (uint32_t)(uintptr_t)arg; /* of a grant that may be gone by now */
	const struct sim_disk_row *row = sim_disk.final[sim_group_of(pair)], *newest = NULL;

	sim_point();
	for (uint64_t n = sim_lane_of(pair); n < SIM_NUMBERS; n += SIM_LANES)
		if (row[n].key_size == size && size > 0 && memcmp(row[n].key, key, size) == 0)
			newest = &row[n];
	if (!newest)
		return SEGUE_ENOTFOUND;
	*found = (struct segue_initials_found){
		.number = newest->number, .states = (const uint8_t *)&newest->states};
	return 0;
}

/* Mutant states_of_another_group: what is in the carry of one who had the feed before. */
static void mistake_states(const struct sim_grant *grant, uint64_t step)
{
	const struct segue_carry *other = grant->filler->feed.subscribers[0];
	uint64_t at = segue_carry_offset(other->geometry, step - 1);

	memcpy((uint8_t *)grant->carry_shm.map + at, (const uint8_t *)other->words + at,
		other->geometry->buffer_size);
}

static void make_memory(const struct making *making, struct sim_grant *grant)
{
	const struct segue_image *image = making->image;
	struct segue_shm *last = &making->driver->place[making->pair].last_carry;
	uint32_t places = segue_plan_places(&making->plan, image->position);
	const struct segue_geometry *geometry = &sim_world.geometry[places];
	uint64_t step = image->position->step;

	if (SEGUE_MUTANT(carry_reused) && last->size == geometry->carry_size)
		grant->carry_shm = *last;
	else
		segue_shm_create("carry", geometry->carry_size, SEGUE_SHM_WRITE, &grant->carry_shm);
	*last = grant->carry_shm;
	segue_shm_create("lease", geometry->lease_size, SEGUE_SHM_READ, &grant->page_shm);
	if (step > 0)
		segue_states_scatter(&sim_world.spec, geometry, image->states,
			segue_position_count(image->position),
			(uint8_t *)grant->carry_shm.map + segue_carry_offset(geometry, step - 1));
	if (step > 0 && grant->filler->feed.subscriber_count &&
		SEGUE_MUTANT(states_of_another_group))
		mistake_states(grant, step);
	segue_carry_init(&grant->carry, grant->carry_shm.map, grant->page_shm.map, geometry,
		&sim_world.spec, grant->record.generation, step, read_carry, &grant->carry_shm);
}

/* ---- A feed that others have: as in engine/grant.c ------------------------------------------ */

/* Whether the feed goes on from there as the image does, in memory of the same form. */
static bool is_as(const struct segue_filler *filler, const struct making *making)
{
	const struct segue_position *position = making->image->position;
	const struct segue_feed_entry *entry = segue_feed_entry(&filler->feed, position->step);

	return entry && (segue_position_same(entry->position, position) ||
				SEGUE_MUTANT(joins_by_step_alone));
}

static bool meets(const struct segue_filler *filler, const struct making *making)
{
	uint64_t step = making->image->position->step;

	if (SEGUE_MUTANT(catch_up_skips_a_batch))
		step++;
	return filler->state < SEGUE_FILLER_CLOSING && !filler->stalled &&
	       segue_feed_reaches(&filler->feed, step) && is_as(filler, making);
}

static bool is_alike(struct segue_filler *filler, const struct making *making)
{
	return filler->geometry.places ==
		       segue_plan_places(&making->plan, making->image->position) &&
	       segue_filler_plan(filler).ends.count == making->plan.ends.count;
}

static void count_join(const struct segue_filler *filler, uint64_t step)
{
	sim_happened[SIM_JOINED]++;
	sim_happened[SIM_JOINED_BEHIND] += step < filler->feed.published;
	sim_happened[SIM_JOINED_OLDEST] += step + filler->geometry.depth == filler->feed.published;
}

/* Looks, makes the memory, and looks again, for the feed may have gone on meanwhile. */
static bool join(struct making *making, struct sim_grant *grant, struct segue_filler *filler)
{
	pthread_mutex_lock(&filler->lock);
	bool joins = meets(filler, making);
	pthread_mutex_unlock(&filler->lock);
	if (!joins)
		return false;
	grant->filler = filler;
	make_memory(making, grant);
	pthread_mutex_lock(&filler->lock);
	grant->joined = meets(filler, making) || SEGUE_MUTANT(join_looks_once);
	if (grant->joined) {
		count_join(filler, making->image->position->step);
		segue_feed_subscribe(&filler->feed, &grant->carry);
	}
	pthread_mutex_unlock(&filler->lock);
	sim_happened[SIM_JOIN_MISSED] += !grant->joined;
	return grant->joined;
}

static void open_feed(struct making *making, struct sim_grant *grant)
{
	int rc = segue_filler_create(&sim_world.spec, &making->plan, &sim_world.source,
		&making->driver->pool, making->image, &grant->filler);

	sim_check(rc == 0, "filler", "pair %u: %s", grant->pair, segue_error_detail());
	grant->filler->initial.store =
		(struct segue_initials_store){load_kept, (void *)(uintptr_t)grant->pair};
	make_memory(making, grant);
	segue_feed_subscribe(&grant->filler->feed, &grant->carry);
}

/* On a loader thread. */
static int build(struct segue_task *task)
{
	struct making *making = (struct making *)task;
	struct sim_driver *driver = making->driver;
	struct sim_grant *grant = calloc(1, sizeof(*grant));
	bool unwritten = SEGUE_MUTANT(grant_not_durable);
	bool *apart = &driver->place[making->pair].apart;

	grant->pair = making->pair;
	grant->record = making->record;
	for (uint32_t i = 0; i < CANDIDATES && making->candidate[i] && !grant->joined; i++)
		if (is_alike(making->candidate[i]->filler, making))
			join(making, grant, making->candidate[i]->filler);
	sim_happened[SIM_CAUGHT_UP] += grant->joined && *apart;
	*apart = !grant->joined && making->candidate[0];
	sim_happened[SIM_OWN_FEED] += *apart;
	if (!grant->joined)
		open_feed(making, grant);
	sim_trace("pair %u: %s a feed", grant->pair, grant->joined ? "joins" : "opens");
	making->grant = grant;
	pthread_mutex_lock(&driver->lock);
	making->built = true;
	making->done = unwritten;
	pthread_mutex_unlock(&driver->lock);
	sim_event_ring(unwritten ? &driver->server->control : &driver->committer_event);
	return 0;
}

static void leave_feed(struct sim_grant *grant)
{
	pthread_mutex_lock(&grant->filler->lock);
	segue_feed_unsubscribe(&grant->filler->feed, &grant->carry);
	sim_happened[SIM_LEFT]++;
	pthread_mutex_unlock(&grant->filler->lock);
	segue_filler_kick(grant->filler);
}

/* As segue_grant_destroy(): its own filler has never been started, or is closed. */
static void destroy_grant(struct sim_grant *grant)
{
	if (!grant)
		return;
	if (grant->joined)
		leave_feed(grant);
	else
		segue_filler_destroy(grant->filler);
	segue_carry_finish(&grant->carry);
	segue_account_finish(&grant->account);
	free(grant);
}

/* ---- Control: feeds, as in stream/feeds.c --------------------------------------------------- */

static void add_candidates(struct sim_driver *driver, struct making *making)
{
	struct feed *feed = driver->feeds[sim_lane_of(making->pair)];
	uint32_t count = 0;

	for (; count < CANDIDATES && feed && driver->share; feed = feed->next) {
		if (feed->alone)
			continue;
		feed->uses++;
		making->candidate[count++] = feed;
	}
}

/* The grant's feed is one of the candidates, or new. */
static void choose_feed(struct sim_driver *driver, struct making *making)
{
	struct feed **feeds = &driver->feeds[sim_lane_of(making->pair)], *feed = NULL;
	struct sim_grant *grant = making->grant;

	for (uint32_t i = 0; grant->joined && i < CANDIDATES; i++)
		if (making->candidate[i] && making->candidate[i]->filler == grant->filler)
			feed = making->candidate[i];
	if (!feed) {
		feed = calloc(1, sizeof(*feed));
		*feed = (struct feed){.next = *feeds, .filler = grant->filler};
		*feeds = feed;
	}
	feed->uses++;
	grant->feed = feed;
}

/* True: nobody uses it any more, and it is off the list. */
static bool leave(struct sim_driver *driver, struct feed *feed, uint32_t lane)
{
	struct feed **link = &driver->feeds[lane];

	if (--feed->uses > 0)
		return false;
	while (*link != feed)
		link = &(*link)->next;
	*link = feed->next;
	return true;
}

static void closed(void *arg)
{
	struct feed *feed = arg;

	segue_filler_destroy(feed->filler);
	free(feed);
}

static void finish_choice(struct sim_driver *driver, struct making *making)
{
	for (uint32_t i = 0; i < CANDIDATES; i++) {
		struct feed *feed = making->candidate[i];
		if (feed && leave(driver, feed, sim_lane_of(making->pair)))
			segue_filler_close(feed->filler, closed, feed);
	}
}

/* Without a scheduling point: an answer is one message. Nobody hears it if the process is gone. */
static void reply(struct sim_request *request, uint64_t serial, int rc)
{
	if (request->serial != serial || !request->pending)
		return;
	request->rc = rc;
	request->granting = false;
	request->pending = false;
	sim_event_set(request->event);
}

static void send_grant(struct sim_request *request, uint64_t serial, const struct sim_grant *grant,
	const struct segue_position *position)
{
	const struct segue_plan_spec *plan = &truth_of(grant->pair)->plan;
	uint64_t step = position->step;

	if (request->serial != serial)
		return;
	sim_oracle_sent(grant->pair, grant->record.generation, step);
	request->generation = grant->record.generation;
	request->first = step;
	request->places = grant->carry.geometry->places;
	request->batch_size = segue_plan_batch_size(plan, position);
	memcpy(request->fresh, grant->record.token, SEGUE_TOKEN_BYTES);
	request->ring = grant->filler->feed.ring;
	request->carry = grant->carry.words;
	request->page = grant->carry.page;
	request->ends = grant->filler->plan_spec.ends.count;
	reply(request, serial, 0);
}

/* The grant is on disk, or cannot be. */
static void finish_making(struct sim_driver *driver, uint32_t pair)
{
	struct place *place = &driver->place[pair];
	struct making *making = place->making;
	bool wanted = making->request->granting && making->request->serial == making->serial &&
		      !driver->server->stopping;

	segue_lease_granted(&place->lease, making->rc == 0 && wanted);
	if (making->rc == 0 && wanted) {
		struct sim_grant *grant = making->grant;
		grant->account = making->account;
		making->account = (struct segue_account){0};
		segue_account_settle(&grant->account, making->image);
		choose_feed(driver, making);
		pthread_mutex_lock(&driver->lock);
		place->grant = grant;
		pthread_mutex_unlock(&driver->lock);
		if (driver->follow && sim_one_in(2)) {
			grant->following = (struct sim_following){.server = driver->server,
				.pair = pair,
				.generation = grant->record.generation,
				.filler = grant->filler,
				.carry = &grant->carry};
			sim_following_begin(&grant->following);
		}
		send_grant(making->request, making->serial, grant, making->image->position);
		segue_filler_kick(grant->filler);
	} else {
		destroy_grant(making->grant);
		reply(making->request, making->serial, making->rc ? making->rc : SEGUE_EGONE);
	}
	finish_choice(driver, making);
	pthread_mutex_lock(&driver->lock);
	place->making = NULL;
	pthread_mutex_unlock(&driver->lock);
	segue_account_finish(&making->account);
	segue_image_destroy(making->image);
	segue_image_destroy(making->before);
	free(making);
}

/* The holder is gone, or gives it back; `held`: the server stops, and it may offer to the next. */
static void end_lease(struct sim_driver *driver, uint32_t pair, bool held)
{
	struct place *place = &driver->place[pair];
	struct sim_grant *grant = place->grant;

	if (!segue_lease_end(&place->lease))
		return;
	sim_trace("pair %u: lease %llu ends", pair, (unsigned long long)place->lease.generation);
	sim_following_end(&grant->following);
	pthread_mutex_lock(&grant->filler->lock);
	if (!held)
		segue_carry_fence(&grant->carry);
	segue_feed_ring(&grant->filler->feed);
	pthread_mutex_unlock(&grant->filler->lock);
	pthread_mutex_lock(&driver->lock);
	grant->finishing = true;
	grant->held = held;
	pthread_mutex_unlock(&driver->lock);
	sim_event_ring(&driver->committer_event);
}

static void nothing_closed(void *arg)
{
	(void)arg;
}

static void feed_closed(void *arg)
{
	struct place *place = arg;

	pthread_mutex_lock(place->lock);
	place->grant->closed = true;
	pthread_mutex_unlock(place->lock);
	sim_event_ring(place->control);
}

/* The last commit is on disk: who leaves a feed last closes it first. True: it is done. */
static bool take_down(struct sim_driver *driver, uint32_t pair)
{
	struct place *place = &driver->place[pair];
	struct sim_grant *grant = place->grant;

	grant->left = true;
	grant->joined = !leave(driver, grant->feed, sim_lane_of(pair));
	if (!grant->joined) {
		segue_filler_close(grant->filler, feed_closed, place);
		return false;
	}
	if (SEGUE_MUTANT(leaver_closes_the_feed))
		segue_filler_close(grant->filler, nothing_closed, NULL);
	return true;
}

static void taken_down(struct sim_driver *driver, uint32_t pair)
{
	struct place *place = &driver->place[pair];
	struct sim_grant *grant = place->grant;

	pthread_mutex_lock(&driver->lock);
	place->grant = NULL;
	pthread_mutex_unlock(&driver->lock);
	if (!grant->joined)
		free(grant->feed);
	destroy_grant(grant);
	segue_lease_taken(&place->lease);
}

/* ---- Control: requests ---------------------------------------------------------------------- */

static enum segue_presence presence_of(const struct segue_holder *holder)
{
	if (!holder->pid)
		return SEGUE_PRESENCE_UNKNOWN;
	return sim_process_alive(holder->pid) ? SEGUE_PRESENCE_ALIVE : SEGUE_PRESENCE_GONE;
}

static bool has_lease(const struct place *place, uint64_t lease)
{
	return lease && place->grant && place->grant->record.generation == lease;
}

/* A newer handle takes the lane of an older one of its process, and of no other. */
static void take_lane(struct sim_driver *driver, struct sim_request *request, int64_t process)
{
	struct place *place = &driver->place[request->pair];

	sim_check(request->take && place->process == process, "thrown_out",
		"pair %u: mode %d of process %lld ends a lease of process %lld", request->pair,
		(int)request->mode, (long long)process, (long long)place->process);
	place->taker = request;
	place->taker_serial = request->serial;
	request->ended_one = true;
	end_lease(driver, request->pair, false);
}

/* Another request has ended the lease for itself, and has not asked again. */
static bool is_behind(const struct place *place, const struct sim_request *request)
{
	const struct sim_request *taker = place->taker;

	return place->lease.state == SEGUE_LEASE_FREE && taker && taker != request &&
	       !request->take && taker->pending && taker->serial == place->taker_serial;
}

/* A reservation is its process's, or whose token proves it. */
static void check_reserved(uint32_t pair, const struct sim_request *request, int64_t process)
{
	sim_check(request->mode == SEGUE_ATTACH_OFFER || sim_oracle_process(pair) == process,
		"reserved", "pair %u is reserved for process %lld, and granted to %lld", pair,
		(long long)sim_oracle_process(pair), (long long)process);
}

static void grant(struct sim_driver *driver, struct sim_request *request, int64_t process,
	enum segue_lease_state before)
{
	uint32_t pair = request->pair;
	struct place *place = &driver->place[pair];

	sim_trace("pair %u: grant %llu to %lld, mode %d", pair,
		(unsigned long long)place->lease.generation, (long long)process,
		(int)request->mode);
	if (before == SEGUE_LEASE_RESERVED)
		check_reserved(pair, request, process);
	place->process = process;
	place->taker = NULL;
	make_grant(driver, pair, request);
}

static void refuse(uint32_t pair, struct sim_request *request)
{
	const struct segue_lane_record *stored = &sim_disk.lane[pair].record;

	sim_check(request->mode != SEGUE_ATTACH_OFFER || !stored->held ||
			  memcmp(stored->token, request->token, SEGUE_TOKEN_BYTES) != 0,
		"offer_refused", "pair %u: the latest holder's offer of step %llu is refused", pair,
		(unsigned long long)request->step);
	reply(request, request->serial, SEGUE_EFENCED);
}

static void attach(struct sim_driver *driver, struct sim_request *request, uint32_t asker)
{
	struct place *place = &driver->place[request->pair];
	enum segue_lease_state before = place->lease.state;
	struct segue_lease_request ask = {
		.holder = sim_holder_asking(asker),
		.mode = request->mode,
		.step = request->step,
		.take = request->take,
		.holder_left = place->cut,
	};
	uint64_t fresh[2] = {sim_random(), sim_random()};

	if (is_behind(place, request))
		return;
	if (has_lease(place, request->lease)) {
		place->taker = request;
		place->taker_serial = request->serial;
		end_lease(driver, request->pair, false);
	}
	memcpy(ask.token, request->token, SEGUE_TOKEN_BYTES);
	switch (segue_lease_ask(
		&place->lease, &ask, stored_step(request->pair), (const uint8_t *)fresh)) {
	case SEGUE_LEASE_GRANT:
		grant(driver, request, sim_process_asking(asker), before);
		break;
	case SEGUE_LEASE_TAKE:
		take_lane(driver, request, sim_process_asking(asker));
		break;
	case SEGUE_LEASE_WAIT: /* asked again when something has changed */
		sim_happened[SIM_RESUME_WAITED] +=
			request->mode == SEGUE_ATTACH_RESUME && before == SEGUE_LEASE_HELD;
		break;
	case SEGUE_LEASE_BUSY:
		sim_happened[SIM_BUSY_UNKNOWN] += !place->lease.holder.pid && !ask.holder.pid;
		break;
	case SEGUE_LEASE_REFUSED:
		refuse(request->pair, request);
		break;
	}
}

/* Who waits no longer. */
static void look_at_waiting(struct sim_request *request)
{
	if (request->kind == SIM_ATTACH && request->pending && !request->granting &&
		request->deadline && request->deadline <= sim_now())
		reply(request, request->serial, SEGUE_EBUSY);
}

static void detach(struct sim_driver *driver, struct sim_request *request)
{
	struct place *place = &driver->place[request->pair];
	bool mine = has_lease(place, request->lease);

	if (mine && place->lease.state == SEGUE_LEASE_HELD)
		end_lease(driver, request->pair, false);
	else if (!mine)
		reply(request, request->serial, 0);
}

static void checkpoint(struct sim_driver *driver, struct sim_request *request)
{
	struct sim_grant *grant = driver->place[request->pair].grant;
	struct segue_image *image = NULL;
	uint64_t committed, serial = request->serial;

	if (!grant || driver->place[request->pair].lease.state != SEGUE_LEASE_HELD) {
		reply(request, serial, SEGUE_EFENCED);
		return;
	}
	int rc = segue_snapshot(grant->filler, &grant->carry, request->step, &committed, &image);
	if (rc == 0) {
		misplace(grant, image);
		sim_oracle_image(grant->pair, grant->record.generation, image);
	}
	if (request->serial == serial) {
		request->image = image;
		request->generation = grant->record.generation;
	}
	reply(request, serial, rc);
}

/* Answers when it is on disk. One that is asked for meanwhile waits its turn. */
static void grow(struct sim_driver *driver, struct sim_request *request)
{
	uint64_t serial = request->serial;

	if (request->ends <= driver->ends) {
		reply(request, serial, 0);
		return;
	}
	pthread_mutex_lock(&driver->lock);
	bool done = driver->growth.done;
	if (!driver->growth.wanted)
		driver->growth = (struct sim_growth){.wanted = true, .ends = driver->ends + 1};
	pthread_mutex_unlock(&driver->lock);
	if (SEGUE_MUTANT(growth_not_durable)) {
		driver->ends = driver->growth.ends;
		reply(request, serial, 0);
	}
	if (!done) {
		sim_event_ring(&driver->committer_event);
		return;
	}
	int rc = driver->growth.rc;
	if (rc == 0) {
		driver->ends = driver->growth.ends;
		sim_trace("the stream has grown to %u ends", driver->ends);
	}
	pthread_mutex_lock(&driver->lock);
	driver->growth = (struct sim_growth){.wanted = false};
	pthread_mutex_unlock(&driver->lock);
	reply(request, serial, rc);
}

static void serve(struct sim_driver *driver, uint32_t asker)
{
	struct sim_request *request = sim_request_of(asker);

	if (!request->pending || request->granting)
		return;
	switch (request->kind) {
	case SIM_ATTACH:
		attach(driver, request, asker);
		look_at_waiting(request);
		break;
	case SIM_DETACH:
		detach(driver, request);
		break;
	case SIM_CHECKPOINT:
		checkpoint(driver, request);
		break;
	case SIM_GROW:
		grow(driver, request);
		break;
	}
}

/* As look_at_holder in ledger.c. */
static bool overdue(const struct sim_driver *driver, const struct place *place)
{
	struct sim_grant *grant = place->grant;

	if (!driver->lease_timeout || !grant || place->lease.state != SEGUE_LEASE_HELD)
		return false;
	pthread_mutex_lock(&grant->filler->lock);
	bool over = segue_carry_overdue(
		&grant->carry, grant->filler->feed.published, sim_now(), driver->lease_timeout);
	pthread_mutex_unlock(&grant->filler->lock);
	if (over)
		sim_happened[SIM_LEASE_TIMEOUT]++;
	return over;
}

/* A loop comes to a connection that has ended when it does: perhaps after other requests. */
static void look_at_connection(struct sim_driver *driver, uint32_t pair)
{
	struct place *place = &driver->place[pair];

	if (!place->grant || place->lease.state != SEGUE_LEASE_HELD)
		place->cut = false;
	else if (place->cut && sim_one_in(2))
		sim_event_set(&driver->server->control);
	else if (place->cut || !sim_process_alive(place->process) || overdue(driver, place))
		end_lease(driver, pair, false);
}

/*
 * Nobody's batches are written over before they are released: so the others are ahead of the last
 * of a feed by `depth` batches, at most.
 */
static void check_lag(const struct sim_grant *grant)
{
	uint64_t written = grant->filler->plan.position->step; /* or being written */
	uint64_t released = atomic_load(&grant->carry.words->released);

	sim_check(written <= released + grant->filler->geometry.depth, "lag",
		"pair %u: has released batches below %llu, and %llu is written", grant->pair,
		(unsigned long long)released, (unsigned long long)written - 1);
}

/* The next batch would come where it has one still. */
static bool keeps(const struct segue_feed *feed, const struct segue_carry *carry)
{
	return carry->released + feed->geometry->depth == feed->published;
}

/* Whether it has come to the end of a ring that somebody else holds up. */
static bool is_held_up(const struct sim_grant *grant)
{
	const struct segue_feed *feed = &grant->filler->feed;
	bool held_up = false;

	for (size_t i = 0; i < feed->subscriber_count; i++)
		held_up |= keeps(feed, feed->subscribers[i]);
	held_up = held_up && grant->carry.released == feed->published;
	sim_happened[SIM_HELD_UP] += held_up;
	return held_up;
}

/* As ask_to_renew() in stream/lag.c. */
static void ask_to_renew(const struct place *place)
{
	struct sim_grant *grant = place->grant;

	pthread_mutex_lock(&grant->filler->lock);
	segue_carry_ask(&grant->carry, SEGUE_ASKS_RENEW);
	segue_feed_ring(&grant->filler->feed);
	pthread_mutex_unlock(&grant->filler->lock);
}

/* As leave_behind() in stream/lag.c: those who are not slow go on by themselves. */
static void leave_behind(struct sim_driver *driver, const struct sim_grant *waits)
{
	struct feed *feed = waits->feed;

	feed->alone = true;
	sim_happened[SIM_DETACHED]++;
	for (uint32_t pair = 0; pair < sim_world.pairs; pair++) {
		const struct place *place = &driver->place[pair];
		if (place->lease.state == SEGUE_LEASE_HELD && place->grant->feed == feed &&
			!keeps(&feed->filler->feed, &place->grant->carry))
			ask_to_renew(place);
	}
}

/* Groups part, and meet again: when, is for chance to say. */
static void look_at_feed(struct sim_driver *driver, const struct place *place)
{
	struct feed *feed = place->grant->feed;
	bool held_up = is_held_up(place->grant);

	if (place->lease.state != SEGUE_LEASE_HELD || !driver->share)
		return;
	if (held_up && !feed->alone && sim_one_in(4))
		leave_behind(driver, place->grant);
	else if (feed->alone && sim_one_in(8))
		feed->alone = false;
	else if (sim_one_in(60))
		ask_to_renew(place);
}

static void look_at(struct sim_driver *driver, uint32_t pair)
{
	struct place *place = &driver->place[pair];

	pthread_mutex_lock(&driver->lock);
	bool made = place->making && place->making->done;
	/* A holder that may go on keeps its feed from moving until the process exits. */
	struct sim_grant *grant = place->grant;
	bool finished = grant && grant->finished && !grant->held && !grant->left;
	bool closed = grant && grant->closed;
	pthread_mutex_unlock(&driver->lock);
	if (made)
		finish_making(driver, pair);
	if (finished)
		closed = take_down(driver, pair);
	if (closed)
		taken_down(driver, pair);
	if (place->grant)
		sim_following_look(&place->grant->following);
	if (place->grant && !place->grant->left)
		check_lag(place->grant);
	look_at_connection(driver, pair);
	if (segue_lease_expire(&place->lease, presence_of(&place->lease.holder), sim_now()))
		sim_happened[SIM_GRACE_OVER] += !place->lease.holder.pid;
	if (place->rung && place->grant) {
		place->rung = false;
		look_at_feed(driver, place);
		segue_filler_kick(place->grant->filler);
	}
}

static void load(struct sim_driver *driver)
{
	driver->ends = sim_disk.ends;
	for (uint32_t pair = 0; pair < sim_world.pairs; pair++) {
		const struct segue_lane_record *record = &sim_disk.lane[pair].record;
		driver->place[pair].lock = &driver->lock;
		driver->place[pair].control = &driver->server->control;
		segue_lease_load(&driver->place[pair].lease, record, presence_of(&record->holder),
			sim_now(), driver->grace);
	}
}

/* Ends all leases for the next server; true when nothing is left to do. */
static bool wind_up(struct sim_driver *driver)
{
	bool idle = true;

	for (uint32_t pair = 0; pair < sim_world.pairs; pair++) {
		struct place *place = &driver->place[pair];
		if (place->grant)
			end_lease(driver, pair, true);
		pthread_mutex_lock(&driver->lock);
		idle &= (!place->grant || place->grant->finished) && !place->making;
		pthread_mutex_unlock(&driver->lock);
	}
	return idle;
}

/* When somebody has waited long enough, or has had a lease, or a reservation, for too long. */
static int64_t next_look(const struct sim_driver *driver)
{
	int64_t next = driver->lease_timeout ? sim_now() + driver->lease_timeout / 8 : SIM_NEVER;

	for (uint32_t i = 0; i < SIM_REQUESTS; i++) {
		const struct sim_request *request = sim_request_of(i);
		if (request->pending && request->deadline && request->deadline < next)
			next = request->deadline;
	}
	for (uint32_t pair = 0; pair < sim_world.pairs; pair++) {
		const struct segue_lease *lease = &driver->place[pair].lease;
		if (lease->state == SEGUE_LEASE_RESERVED && lease->reserved_until < next)
			next = lease->reserved_until;
	}
	return next;
}

static void run_control(void *arg)
{
	struct sim_driver *driver = arg;

	load(driver);
	for (;;) {
		for (uint32_t pair = 0; pair < sim_world.pairs; pair++)
			look_at(driver, pair);
		if (driver->server->stopping && wind_up(driver))
			sim_server_stopped();
		for (uint32_t i = 0; i < SIM_REQUESTS && !driver->server->stopping; i++)
			serve(driver, i);
		sim_event_wait(&driver->server->control, next_look(driver));
	}
}

/* ---- Life ----------------------------------------------------------------------------------- */

struct sim_server *sim_server_start(void)
{
	static const int64_t intervals[] = {40, 300, 1000, 5000};
	struct sim_server *server = calloc(1, sizeof(*server));
	struct sim_driver *driver = calloc(1, sizeof(*driver));

	*server = (struct sim_server){.alive = true, .driver = driver};
	driver->server = server;
	/* Where rows begin with what was kept, a batch is one group's. */
	driver->share = !sim_one_in(4) && sim_world.spec.initial != SEGUE_INITIAL_KEPT;
	/* A feed that is followed has one subscriber. */
	driver->follow = sim_one_in(3);
	driver->share = driver->share && !driver->follow;
	driver->interval = intervals[sim_below(sizeof(intervals) / sizeof(intervals[0]))];
	/* Long enough for one worker to take all lanes, which takes transactions. */
	driver->lease_timeout = sim_one_in(4) ? 3000 + sim_below(3000) + 12 * sim_disk.lag : 0;
	driver->grace = 2000 + sim_below(4000);
	driver->pool.last = &driver->pool.tasks;
	sim_world_open_source();
	sim_spawn("control", 0, run_control, driver);
	sim_spawn("committer", 0, run_committer, driver);
	sim_spawn("loader-0", 0, run_loader, &driver->pool);
	if (sim_one_in(2))
		sim_spawn("loader-1", 0, run_loader, &driver->pool);
	return server;
}

void sim_server_died(struct sim_server *server)
{
	server->alive = false;
	sim_disk_crash();
	sim_followers_see_lost(server);
	sim_wake_sleepers();
	for (uint32_t i = 0; i < SIM_REQUESTS; i++) {
		struct sim_request *request = sim_request_of(i);
		if (!request->pending)
			continue;
		request->rc = SEGUE_EGONE;
		request->pending = request->granting = false;
		sim_event_set(request->event);
	}
}

void sim_doorbell(struct sim_server *server, uint32_t pair)
{
	if (!server->alive)
		return;
	server->driver->place[pair].rung = true;
	sim_event_ring(&server->control);
}

void sim_server_stop(struct sim_server *server)
{
	server->stopping = true;
	sim_event_set(&server->control);
}

void sim_server_cut(struct sim_server *server, uint32_t pair)
{
	if (server->driver->place[pair].grant) {
		sim_happened[SIM_CONNECTION_CUT]++;
		server->driver->place[pair].cut = true;
	}
	sim_event_set(&server->control);
}

void sim_server_lose(struct sim_server *server, uint32_t pair, uint64_t generation)
{
	struct place *place = &server->driver->place[pair];

	if (server->alive && has_lease(place, generation))
		place->cut = true;
	sim_event_set(&server->control);
}
