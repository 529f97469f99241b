/* From traces to verdicts: replay.h has the contract. */
#include "replay.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tmpdir.h"

#define TABLE   (1u << 16) /* images that a shard can tell apart */
#define SHARDS  8
#define SECONDS 60 /* that the check of one image may take */
#define PRINTED 5

/* A distinct image, and what is known of it. */
struct seen {
	uint64_t hash; /* 0: empty */
	uint64_t point, index;
	uint64_t seq[ORACLE_LINES], low[ORACLE_LINES], high[ORACLE_LINES];
	uint8_t verdict, strength; /* the strongest that it was met with */
};

/* A part of the images, by hash; in memory that outlives the children that check it. */
struct shard {
	uint64_t point, index; /* being looked at, or next */
	uint32_t current;      /* the entry being checked; UINT32_MAX: none */
	uint32_t count;
	uint64_t points;
	bool blind, stopped;
	struct seen seen[TABLE];
	char why[TABLE / 64][ORACLE_WHY]; /* by entry, of those that are not good; then shared */
};

/* Where the replay stands. */
struct stand {
	struct disk *disk;
	const struct trace_event *event;
	bool in_flight; /* `event` is an O_DSYNC write that has not returned */
	bool injected;  /* something has failed on purpose */
	bool blind;
	uint64_t point;
	uint64_t low[ORACLE_LINES], high[ORACLE_LINES];
};

static void die(const char *what)
{
	fprintf(stderr, "replay: %s: %s\n", what, strerror(errno));
	abort();
}

/* ---- Points ---- */

static void apply_mark(struct stand *stand, const struct trace_event *event)
{
	if (event->offset >= ORACLE_LINES)
		return;
	if (event->file == MARK_BEGIN && event->other > stand->high[event->offset])
		stand->high[event->offset] = event->other;
	if (event->file != MARK_ACK && event->file != MARK_START)
		return;
	if (event->other > stand->low[event->offset])
		stand->low[event->offset] = event->other;
	if (event->other > stand->high[event->offset])
		stand->high[event->offset] = event->other;
}

/* Whether power may be cut here with another outcome than at the point before. */
static bool is_point(const struct trace_event *event)
{
	return event->kind != TRACE_INJECTED &&
	       (event->kind != TRACE_MARK || event->file == MARK_ACK || event->file == MARK_START);
}

/* Goes to the next point. False: the trace has ended. */
static bool next_point(struct stand *stand, const struct trace *trace)
{
	if (stand->in_flight) {
		stand->in_flight = false;
		disk_settle(stand->disk);
		stand->point++;
		return true;
	}
	do {
		stand->event = trace_next(trace, stand->event);
		if (!stand->event)
			return false;
		disk_apply(stand->disk, stand->event, &stand->blind);
		stand->injected = stand->injected || stand->event->kind == TRACE_INJECTED;
		if (stand->event->kind == TRACE_MARK)
			apply_mark(stand, stand->event);
	} while (!is_point(stand->event));
	stand->in_flight = disk_in_flight(stand->disk);
	stand->point++;
	return true;
}

/* Image `index` of the point; false: there are no more. */
static bool pick_of(const struct replay *replay, const struct stand *stand, uint64_t index,
	struct pick *pick, enum strength *strength)
{
	uint64_t units = disk_units(stand->disk);
	uint64_t seed = disk_mix(replay->seed ^ stand->point << 20, index);
	const uint64_t random = units ? replay->random : 0;
	static const enum pick_kind kinds[] = {PICK_PAGES, PICK_SECTORS, PICK_GARBAGE};

	*strength = STRENGTH_WORD;
	if (replay->after_fault && !stand->injected)
		return false;
	if (index == 0)
		return *pick = (struct pick){PICK_NONE, 0}, true;
	index--;
	for (enum pick_kind kind = PICK_PREFIX; kind <= PICK_ONLY; kind++) {
		if (index < units)
			return *pick = (struct pick){kind, kind == PICK_PREFIX ? index + 1 : index},
			       true;
		index -= units;
	}
	if (index < random)
		return *pick = (struct pick){kinds[index % 3], seed}, true;
	index -= random;
	if (stand->in_flight && index < replay->random)
		return *strength = STRENGTH_TORN, *pick = (struct pick){PICK_TORN_SYNC, seed}, true;
	/* Once a transaction's meta page is on disk, what it says was synced can be missing. */
	if (!stand->in_flight && stand->event->kind == TRACE_DSYNC_WRITE &&
		disk_can_lie(stand->disk) && index < replay->random)
		return *strength = STRENGTH_LIE, *pick = (struct pick){PICK_LIE, seed}, true;
	return false;
}

static void begin_stand(const struct replay *replay, struct stand *stand)
{
	*stand = (struct stand){.disk = disk_copy(replay->base)};
	for (const struct trace_event *event = NULL; (event = trace_next(replay->trace, event));)
		if (event->kind == TRACE_MARK && event->file == MARK_START)
			apply_mark(stand, event);
}

/* ---- The children ---- */

/* The entry of the image; *fresh if it was not met before. */
static struct seen *find_seen(struct shard *shard, uint64_t hash, bool *fresh)
{
	uint32_t at = (uint32_t)hash % TABLE;

	while (shard->seen[at].hash && shard->seen[at].hash != hash)
		at = (at + 1) % TABLE;
	*fresh = !shard->seen[at].hash;
	if (*fresh && ++shard->count > TABLE / 4 * 3)
		die("too many images for the table");
	shard->seen[at].hash = hash;
	return &shard->seen[at];
}

static void narrow(const struct replay *replay, struct seen *seen, const struct stand *stand,
	enum strength strength, bool fresh)
{
	if (fresh || strength < seen->strength)
		seen->strength = (uint8_t)strength;
	for (int i = 0; i < replay->oracle->lines; i++) {
		/* A disk that lies may have lost anything. */
		uint64_t low = strength == STRENGTH_LIE ? 0 : stand->low[i];
		if (fresh || low > seen->low[i])
			seen->low[i] = low;
		if (fresh || stand->high[i] < seen->high[i])
			seen->high[i] = stand->high[i];
	}
}

static char *why_of(struct shard *shard, const struct seen *seen)
{
	return shard->why[(size_t)(seen - shard->seen) % (TABLE / 64)];
}

/* What is not right with an entry; NULL: nothing. */
static const char *violation_of(
	const struct replay *replay, struct shard *shard, const struct seen *seen)
{
	static char text[2 * ORACLE_WHY];
	bool refused = seen->verdict == VERDICT_REFUSED || seen->verdict == VERDICT_DIED;

	if (refused && seen->strength != STRENGTH_WORD)
		return NULL;
	if (seen->verdict == VERDICT_DIED)
		return "whoever opens it dies by a signal";
	if (seen->verdict != VERDICT_GOOD) {
		snprintf(text, sizeof(text), "%s: %s",
			seen->verdict == VERDICT_REFUSED ? "refused" : "wrong",
			why_of(shard, seen));
		return text;
	}
	for (int i = 0; i < replay->oracle->lines; i++) {
		if (seen->seq[i] >= seen->low[i] && seen->seq[i] <= seen->high[i])
			continue;
		snprintf(text, sizeof(text), "line %d is at %llu: acknowledged %llu, begun %llu", i,
			(unsigned long long)seen->seq[i], (unsigned long long)seen->low[i],
			(unsigned long long)seen->high[i]);
		return text;
	}
	return NULL;
}

static void check_image(const struct replay *replay, struct shard *shard, const struct stand *stand,
	struct seen *seen, uint64_t index, const char *root)
{
	char dir[SEGUE_TMPDIR_MAX];

	seen->point = stand->point;
	seen->index = index;
	shard->current = (uint32_t)(seen - shard->seen);
	disk_write(stand->disk, root);
	snprintf(dir, sizeof(dir), "%s/" REPLAY_STORE, root);
	alarm(SECONDS);
	seen->verdict = (uint8_t)replay->oracle->check(dir, seen->seq, why_of(shard, seen));
	alarm(0);
	shard->current = UINT32_MAX;
	if (replay->first_only && violation_of(replay, shard, seen))
		shard->stopped = true;
}

static void visit_point(const struct replay *replay, struct shard *shard, struct stand *stand,
	unsigned job, const char *root)
{
	struct pick pick;
	enum strength strength;
	bool fresh;

	for (; pick_of(replay, stand, shard->index, &pick, &strength); shard->index++) {
		uint64_t hash = disk_image(stand->disk, pick) | 1;
		if ((hash >> 40) % replay->jobs != job)
			continue;
		struct seen *seen = find_seen(shard, hash, &fresh);
		narrow(replay, seen, stand, strength, fresh);
		if (fresh)
			check_image(replay, shard, stand, seen, shard->index, root);
		else if (replay->first_only && violation_of(replay, shard, seen))
			shard->stopped = true;
		if (shard->stopped)
			_exit(0);
	}
}

static void work(const struct replay *replay, struct shard *shard, unsigned job, const char *root)
{
	struct stand stand;

	if (!freopen("/dev/null", "w", stderr)) /* LMDB has much to say of damaged files */
		_exit(1);
	begin_stand(replay, &stand);
	while (next_point(&stand, replay->trace)) {
		shard->blind = stand.blind;
		if (stand.blind)
			_exit(0);
		if (stand.point < shard->point)
			continue;
		shard->point = stand.point;
		visit_point(replay, shard, &stand, job, root);
		shard->index = 0;
		shard->point++;
	}
	shard->points = stand.point;
	_exit(0);
}

static pid_t start(const struct replay *replay, struct shard *shard, unsigned job, const char *root)
{
	fflush(stdout);
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0)
		work(replay, shard, job, root);
	return pid;
}

/* A child died: was it by what it looked at? Then it goes on behind that. */
static bool buried(const struct replay *replay, struct shard *shard, int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return false;
	if (shard->current == UINT32_MAX || !WIFSIGNALED(status))
		die("a child failed by itself");
	struct seen *seen = &shard->seen[shard->current];
	seen->verdict = VERDICT_DIED;
	shard->current = UINT32_MAX;
	shard->index++;
	if (replay->first_only && violation_of(replay, shard, seen))
		shard->stopped = true;
	return !shard->stopped;
}

/* ---- The parent ---- */

static void report(const struct replay *replay, const struct seen *seen, const char *what,
	struct replayed *sum)
{
	char path[SEGUE_TMPDIR_MAX];
	const char *mutant = replay->mutant ? replay->mutant : "";

	if (!sum->first[0])
		snprintf(sum->first, sizeof(sum->first), "point %llu, image %llu: %s",
			(unsigned long long)seen->point, (unsigned long long)seen->index, what);
	if (!replay->save || sum->violations >= PRINTED)
		return;
	fprintf(stderr, "VIOLATION at point %llu, image %llu, seed %llu: %s\n",
		(unsigned long long)seen->point, (unsigned long long)seen->index,
		(unsigned long long)replay->seed, what);
	snprintf(path, sizeof(path), "%s/image-%llu-%llu", replay->save,
		(unsigned long long)seen->point, (unsigned long long)seen->index);
	if (replay_image(replay, seen->point, seen->index, path))
		fprintf(stderr,
			"  the image is in %s; again: crash_%s --again %s --point "
			"%llu --image %llu --random %u --seed %llu %s%s\n",
			path, replay->oracle->name, replay->save, (unsigned long long)seen->point,
			(unsigned long long)seen->index, replay->random,
			(unsigned long long)replay->seed, mutant[0] ? "--mutant " : "", mutant);
}

static void count_strength(const struct seen *seen, struct replayed *sum)
{
	bool whole = seen->verdict == VERDICT_GOOD;

	if (seen->strength == STRENGTH_TORN) {
		sum->torn++;
		sum->torn_whole += whole;
		sum->torn_refused += !whole;
	} else if (seen->strength == STRENGTH_LIE) {
		sum->lies++;
		sum->lies_whole += whole;
		sum->lies_refused += !whole;
	}
}

static void add_up(const struct replay *replay, struct shard *shard, struct replayed *sum)
{
	for (uint32_t i = 0; i < TABLE; i++) {
		const struct seen *seen = &shard->seen[i];
		if (!seen->hash)
			continue;
		sum->images++;
		sum->deaths += seen->verdict == VERDICT_DIED;
		count_strength(seen, sum);
		const char *what = violation_of(replay, shard, seen);
		if (!what)
			continue;
		report(replay, seen, what, sum);
		sum->violations++;
	}
	if (shard->blind && sum->violations++ == 0)
		snprintf(sum->first, sizeof(sum->first), "a file is mapped to be written");
}

static uint64_t events_in(const struct trace *trace)
{
	uint64_t count = 0;

	for (const struct trace_event *event = NULL; (event = trace_next(trace, event));)
		count++;
	return count;
}

void replay_run(const struct replay *replay, struct replayed *sum)
{
	struct shard *shards[SHARDS];
	pid_t pids[SHARDS];
	struct segue_tmpdir tmp;
	char root[SHARDS][SEGUE_TMPDIR_MAX], name[16];
	unsigned left = replay->jobs;

	segue_tmpdir_make(&tmp, "replay");
	for (unsigned job = 0; job < replay->jobs; job++) {
		shards[job] = mmap(NULL, sizeof(**shards), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (shards[job] == MAP_FAILED)
			die("memory for images");
		shards[job]->current = UINT32_MAX;
		snprintf(name, sizeof(name), "%u", job);
		segue_tmpdir_path(&tmp, name, root[job]);
		pids[job] = start(replay, shards[job], job, root[job]);
	}
	while (left > 0) {
		int status;
		pid_t pid = wait(&status);
		unsigned job = 0;
		while (job < replay->jobs && pids[job] != pid)
			job++;
		if (job == replay->jobs)
			continue;
		if (buried(replay, shards[job], status))
			pids[job] = start(replay, shards[job], job, root[job]);
		else
			left--;
	}
	sum->events += events_in(replay->trace);
	sum->points += shards[0]->points;
	for (unsigned job = 0; job < replay->jobs; job++) {
		add_up(replay, shards[job], sum);
		munmap(shards[job], sizeof(**shards));
	}
	segue_tmpdir_remove(&tmp);
}

/* ---- Single images ---- */

bool replay_image(const struct replay *replay, uint64_t point, uint64_t index, const char *root)
{
	struct stand stand;
	struct pick pick;
	enum strength strength;
	bool found = true;

	begin_stand(replay, &stand);
	while (found && stand.point < point)
		found = next_point(&stand, replay->trace);
	found = found && pick_of(replay, &stand, index, &pick, &strength);
	if (found) {
		disk_image(stand.disk, pick);
		disk_write(stand.disk, root);
	}
	disk_destroy(stand.disk);
	return found;
}

void replay_sample(const struct replay *replay, const char *root, unsigned every,
	void (*visit)(void *arg, uint64_t point, uint64_t index), void *arg)
{
	struct stand stand;
	struct pick pick;
	enum strength strength;
	uint64_t count = disk_mix(replay->seed, 2) % every;

	begin_stand(replay, &stand);
	while (next_point(&stand, replay->trace))
		for (uint64_t index = 0; pick_of(replay, &stand, index, &pick, &strength);
			index++) {
			if (strength != STRENGTH_WORD || ++count % every)
				continue;
			disk_image(stand.disk, pick);
			disk_write(stand.disk, root);
			visit(arg, stand.point, index);
		}
	disk_destroy(stand.disk);
}
