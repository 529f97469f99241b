/* C7: words that cannot be: zero, -1, 2^63, beyond what was published, backwards. */
#include "hostile.h"

#include <stdio.h>

#include "core/barrier.h"
#include "core/wait.h"

enum { LANE = 7 };

/* The lease after three honest batches; then one lie. */
struct lie {
	const char *what;
	uint64_t committed, released; /* 3: as it is */
	bool ends;                    /* the lease; else the server goes by the lesser word */
};

static const struct lie lies[] = {
	{"committed 0", 0, 3, true},
	{"committed -1", UINT64_MAX, 3, true},
	{"committed 2^63", UINT64_C(1) << 63, 3, true},
	{"committed beyond what is published", 3 + 1000, 3, true},
	{"committed backwards", 2, 3, true},
	{"released 0", 3, 0, true},
	{"released backwards", 3, 2, true},
	{"released -1", 3, UINT64_MAX, false},
	{"released 2^63", 3, UINT64_C(1) << 63, false},
	{"released beyond committed", 3, 4, false},
};

static void be_honest(struct seat *seat)
{
	for (; seat->step < 3; seat->step++) {
		EXPECT(seat_await(seat, seat->step), "no batch");
		segue_store_release(&seat->carry->committed, seat->step + 1);
		segue_store_release(&seat->carry->released, seat->step + 1);
		segue_event_ring(seat->fds[3]);
	}
	/* The server must have seen it: batch 3 + depth - 1 takes the place of batch 2. */
	EXPECT(seat_await(seat, 3 + seat->geometry.depth - 1), "the ring is not filled again");
}

void attack_words(struct hostile *hostile)
{
	struct seat seat;
	unsigned told = 0;

	for (; told < sizeof(lies) / sizeof(lies[0]) || hostile_time_left(hostile); told++) {
		const struct lie *lie = &lies[told % (sizeof(lies) / sizeof(lies[0]))];
		seat_take(hostile, hostile->dir, LANE, SEGUE_ATTACH_FRESH, &seat);
		be_honest(&seat);
		segue_store_release(&seat.carry->committed, lie->committed);
		segue_store_release(&seat.carry->released, lie->released);
		segue_event_ring(seat.fds[3]);
		EXPECT(seat_fenced(&seat, lie->ends ? 5000 : 100) == lie->ends, "%s: the lease %s",
			lie->what, lie->ends ? "goes on" : "was ended");
		/* Nothing was given out for the lie: what is not committed stays where it is. Where the
		 * lease is over, another group may go on with the ring. */
		uint64_t published = segue_load_acquire(&seat.ring->published);
		EXPECT(published <= 3 + seat.geometry.depth || (hostile->group && lie->ends),
			"%s: %llu batches published", lie->what, (unsigned long long)published);
		seat_leave(&seat);
	}
	printf("%u lies: leases ended, or the lesser word believed\n", told);
}
