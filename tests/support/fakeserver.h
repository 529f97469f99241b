/*
 * A server for tests of the client library: a thread that answers every message, fills real rings,
 * and does wrong what a test asks it to.
 *
 * It serves one stream. Record r has lengths[r] steps; sequence `number` of the stream is a record
 * by the plan. Sequence feature 0 (float32 scalars) holds number * 1000 + step, context feature 0
 * (int64 scalar) the number, and the key is "rec:<number>". What would be on disk lives in the
 * struct, so that it outlasts fakeserver_kill(). It has its own simple store and lease rules, apart
 * from the server's code; faults of its own print and abort.
 */
#ifndef SEGUE_TEST_FAKESERVER_H
#define SEGUE_TEST_FAKESERVER_H

#include <pthread.h>

#include "client/connection.h"
#include "core/layout.h"
#include "lane/plan.h"
#include "core/shm.h"

#define FAKE_LANES       2
#define FAKE_CONNECTIONS 4
#define FAKE_RECORDS     64
#define FAKE_ROWS_KEPT   256 /* steps of which the number of rows is remembered */
#define FAKE_TEXT        65536

/* What the test may set, under the lock or before the start. */
struct fake_script {
	uint64_t records, lengths[FAKE_RECORDS];
	int refuse_code;     /* HELLO is refused with it; 0: not */
	bool other_layout;   /* WELCOME names another layout version */
	bool wrong_hash;     /* OPENED has another hash */
	int progress;        /* PROGRESS frames before OPENED */
	int mute;            /* requests of this type are not answered */
	int late;            /* requests of this type are answered when this is another one */
	int die_on;          /* at a request of this type the connection is closed, ... */
	int die_times;       /* ... so many times */
	int lose_grants;     /* grants made, with the connection closed instead of an answer */
	int bad_grants;      /* grants whose ring is none */
	unsigned bad_rows;   /* so many more than there are stand in a grant */
	bool wrong_reply;    /* REPORT is answered by DONE */
	bool stray;          /* REPORT is preceded by a reply to an older request, with an fd */
	bool hold;           /* publishes nothing */
	unsigned hold_lanes; /* nor in these: bits */
	bool hold_durable;   /* makes nothing durable */
	int storage_error;   /* on every page; 0: none */
	int damage;          /* how slots are damaged: damage_slot() */
	uint64_t fail_at;    /* the batch that cannot be made; 0: none */
};

/* What it saw, to be read under the lock. */
struct fake_seen {
	unsigned connections, hellos, opens, attaches, takes, offers, detaches, flushes, uploads;
	unsigned resizes;
	unsigned events; /* rings of the eventfds */
	char paths[FAKE_TEXT];
	size_t paths_size;
	uint64_t offer_step;
	uint8_t offer[FAKE_TEXT];
	size_t offer_size;
};

struct fake_lane {
	/* The disk. */
	uint64_t generation;
	uint8_t token[SEGUE_TOKEN_BYTES];
	bool token_valid; /* an offer may still come */
	bool started;
	uint64_t step;
	uint32_t rows;
	uint32_t batch_size; /* that was set, 0: none; the batches stay as they are */
	uint8_t *states;     /* rows * row_size */
	/* The lease. */
	int connection; /* -1: none */
	uint64_t lease, granted, published;
	struct segue_shm ring, carry, page;
	int event;
	struct segue_plan plan;
	uint32_t rows_at[FAKE_ROWS_KEPT];
	bool over;
};

struct fakeserver {
	struct fake_script script;
	struct fake_seen seen;
	/* Its own. */
	char path[108];
	pthread_t thread;
	pthread_mutex_t lock;
	bool running, stop;
	uint64_t starts;
	int listener;
	struct {
		int fd;
		bool waits; /* with a frame that is to be answered late */
		struct segue_frame frame;
		struct segue_frame_reader *reader;
	} connections[FAKE_CONNECTIONS];
	struct segue_arena arena;
	struct segue_spec *spec;
	struct segue_geometry geometry;
	uint64_t row_size, last_id;
	struct segue_shm upload;
	uint64_t upload_size;
	struct fake_lane lanes[FAKE_LANES];
};

/* A server that is not running yet, for the socket `path`, with 8 records. */
struct fakeserver *fakeserver_create(const char *path);
void fakeserver_start(struct fakeserver *server);
/* Ends like a process that is killed: sockets close, nothing committed is taken. */
void fakeserver_kill(struct fakeserver *server);
/* Kills it if need be. */
void fakeserver_destroy(struct fakeserver *server);

void fakeserver_lock(struct fakeserver *server);
void fakeserver_unlock(struct fakeserver *server);

/* Another process takes the lane, and commits nothing. */
void fakeserver_usurp(struct fakeserver *server, unsigned lane);
/* Asks the holder of the lane: bits of enum segue_lease_asks. */
void fakeserver_ask(struct fakeserver *server, unsigned lane, uint32_t bits);
/* Ends the lease as if its process had gone; what is committed is taken. */
void fakeserver_end_lease(struct fakeserver *server, unsigned lane);
/* Fails, for no request in particular, on the first connection, and closes it. */
void fakeserver_hang_up(struct fakeserver *server, int code, const char *detail);
/* Waits until batches below `published` of the lane are readable. */
void fakeserver_await(struct fakeserver *server, unsigned lane, uint64_t published);
/* Waits until batches below `step` of the lane are committed. */
void fakeserver_await_commit(struct fakeserver *server, unsigned lane, uint64_t step);
/* Waits until no connection is open. */
void fakeserver_await_idle(struct fakeserver *server);

#endif
