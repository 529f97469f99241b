/* A worker of the group without a name beside an attacker of group "b": it must see what is its own. */
#include "hostile.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/wait.h"

enum { RUN = 40, WAIT_MS = 300, PATIENCE_MS = 300, TRIES = 5 };

/* Shared by the two, and what they fork. */
static struct page {
	_Atomic uint64_t step, ring;   /* where the attacker is, and the inode of its ring */
	_Atomic uint64_t batches, met; /* of the mate; times that its ring was the attacker's */
	_Atomic uint64_t held;         /* times that it had to wait for the attacker */
} * page;

static volatile sig_atomic_t stop;

static void on_term(int signal)
{
	(void)signal;
	stop = 1;
}

/* The ring that this process has mapped; 0: none. */
static uint64_t mapped_ring(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long inode, found = 0;
	char line[512];

	while (maps && fgets(line, sizeof(line), maps))
		if (strstr(line, "segue-ring") && sscanf(line, "%*s %*s %*s %*s %lu", &inode) == 1)
			found = inode;
	if (maps)
		fclose(maps);
	return found;
}

void hostile_beside_note(uint64_t step, int ring)
{
	struct stat info = {0};

	if (!page)
		return;
	page->ring = ring >= 0 && fstat(ring, &info) == 0 ? info.st_ino : mapped_ring();
	page->step = step;
}

/* A batch, checked; false: the attacker, whose batches are not released, holds it up. */
static bool work(struct segue_lane *lane, int64_t timeout_ms)
{
	struct segue_batch *batch;
	int rc = segue_lane_next(lane, timeout_ms * 1000000, &batch);

	if (rc == SEGUE_ETIMEOUT)
		page->held++;
	if (rc == SEGUE_ETIMEOUT)
		return false;
	EXPECT(rc == 0, "the other group: next: %s", segue_error_detail());
	hostile_check(batch);
	hostile_commit(batch);
	page->batches++;
	return true;
}

/* Comes to where the attacker is, waits until they have one ring, and goes on. */
static void train(struct segue_stream *stream, uint32_t index)
{
	struct segue_lane *lane = hostile_take(stream, index, SEGUE_START_FRESH);
	uint64_t ring = mapped_ring(), step = 0;
	bool on = true, met = false;

	for (; on && !stop && step < page->step; step++)
		on = work(lane, PATIENCE_MS);
	for (int ms = 0; on && !stop && !met && ms < WAIT_MS; ms++) {
		hostile_sleep_ms(1);
		met = page->ring == ring;
	}
	page->met += met;
	for (int i = 0; on && !stop && i < RUN; i++)
		on = work(lane, PATIENCE_MS);
	segue_lane_close(lane);
}

static _Noreturn void mate(const struct hostile *hostile, uint32_t lane)
{
	struct segue_client *client;
	struct segue_stream *stream;

	signal(SIGTERM, on_term);
	hostile_open(hostile, hostile->dir, &client, &stream);
	while (!stop)
		train(stream, lane);
	segue_stream_close(stream);
	segue_client_close(client);
	_exit(0);
}

void hostile_beside(struct hostile *hostile, uint32_t lane, void (*attack)(struct hostile *hostile))
{
	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	EXPECT(page != MAP_FAILED, "mmap");
	pid_t pid = hostile_fork();
	if (pid == 0) {
		hostile_be_of_group(NULL, 77);
		mate(hostile, lane);
	}
	hostile_be_of_group("b", 0);
	hostile->group = "b";
	for (int i = 0; i < TRIES && (i == 0 || page->met == 0); i++)
		attack(hostile);
	kill(pid, SIGTERM);
	hostile_reap(pid, 0);
	printf("beside it %" PRIu64 " batches of another group, %" PRIu64 " times on one ring, "
	       "%" PRIu64 " times held up\n",
		page->batches, page->met, page->held);
	EXPECT(page->met > 0 || hostile->crowded, "the two had no ring in common");
	EXPECT(page->batches > 0, "the other group had no batch");
}
