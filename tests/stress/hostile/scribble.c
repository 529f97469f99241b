/* C5: writes at random into all that it may write, while the server reads it. */
#include "hostile.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>

#include "core/barrier.h"
#include "core/wait.h"

enum { LANE = 5, UPLOAD = 1 << 16 };

/* States and the segment's head at random, words in order: none of the server's business. */
static void scribble_states(struct hostile *hostile, struct seat *seat, uint64_t batches)
{
	volatile uint64_t *words = (volatile uint64_t *)seat->carry;
	uint64_t size = seat->geometry.carry_size / 8, first = seat->geometry.buffers_offset / 8;

	for (uint64_t i = 0; i < batches; i++) {
		EXPECT(seat_await(seat, seat->step), "no batch %llu",
			(unsigned long long)seat->step);
		for (int n = 0; n < 500; n++) {
			uint64_t random = hostile_random(hostile);
			words[random % 8 ? first + random % (size - first) : random % 4] = random;
		}
		seat->step++;
		segue_store_release(&seat->carry->committed, seat->step);
		segue_store_release(&seat->carry->released, seat->step);
		segue_event_ring(seat->fds[3]);
	}
}

struct upload {
	volatile uint64_t *words;
	uint64_t random;
	_Atomic bool stop;
};

static void *scribble_upload(void *arg)
{
	struct upload *upload = arg;

	while (!upload->stop)
		for (int i = 0; i < 1000; i++) {
			upload->random =
				upload->random * 6364136223846793005u + 1442695040888963407u;
			upload->words[(upload->random >> 33) % (UPLOAD / 8)] = upload->random;
		}
	return NULL;
}

/* A token that changes while the server reads it. */
static void restore_noise(struct hostile *hostile, struct seat *seat)
{
	struct segue_message request = {.type = SEGUE_MESSAGE_UPLOAD, .upload = {.size = UPLOAD}};
	struct upload upload = {.random = hostile_random(hostile)};
	pthread_t thread;

	EXPECT(raw_call(&seat->raw, &request) == SEGUE_MESSAGE_BULK, "upload: %s",
		seat->raw.reply.failure.detail);
	int fd = seat->raw.fds[0];
	upload.words = mmap(NULL, UPLOAD, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT(upload.words != MAP_FAILED, "mmap");
	struct segue_message restore = {.type = SEGUE_MESSAGE_LANE_ATTACH,
		.lane_attach = {.stream = seat->stream,
			.lane = LANE,
			.group = seat->group,
			.mode = SEGUE_ATTACH_RESTORE,
			.upload = seat->raw.reply.bulk.id,
			.lease = seat->lease}};
	EXPECT(pthread_create(&thread, NULL, scribble_upload, &upload) == 0, "thread");
	EXPECT(raw_call(&seat->raw, &restore) == SEGUE_MESSAGE_FAILURE, "noise is no token");
	upload.stop = true;
	pthread_join(thread, NULL);
	munmap((void *)upload.words, UPLOAD);
	close(fd);
	EXPECT(!seat_fenced(seat, 1), "a token that does not fit has ended the lease");
}

void attack_scribble(struct hostile *hostile)
{
	struct seat seat;
	unsigned rounds = 0;

	for (; rounds < 2 || hostile_time_left(hostile); rounds++) {
		seat_take(hostile, hostile->dir, LANE, SEGUE_ATTACH_FRESH, &seat);
		scribble_states(hostile, &seat, 40);
		restore_noise(hostile, &seat);
		for (int i = 0; i < 100000 && !seat_fenced(&seat, 1); i++) {
			segue_store_release(&seat.carry->committed, hostile_random(hostile));
			segue_store_release(&seat.carry->released, hostile_random(hostile));
			segue_store_release(
				&seat.carry->sleeping, (uint32_t)hostile_random(hostile));
			segue_event_ring(seat.fds[3]);
		}
		EXPECT(seat_fenced(&seat, 1), "words at random, and the lease goes on");
		seat_leave(&seat);
	}
	printf("%u leases scribbled over\n", rounds);
}
