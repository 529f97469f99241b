/*
 * The server of a run: what its threads do around the files under test, in the shape of the real
 * server.
 *
 * Control grants, ends and restores leases (stream/, engine/grant.c); the committer writes (engine/committer.c);
 * loaders run fillers (pool.c). Fillers and snapshots are the real ones.
 */
#ifndef SEGUE_SIM_DRIVER_H
#define SEGUE_SIM_DRIVER_H

#include "lane/lease.h"
#include "machine.h"
#include "world.h"

struct segue_image;

/* A row that a worker keeps until it is durable, and offers. */
struct sim_kept {
	struct sim_kept *next;
	uint64_t step, number;
	struct sim_states states;
	char key[SIM_KEY_MAX];
	uint32_t key_size;
};

/* A checkpoint of one (lane, group). */
struct sim_token {
	struct segue_image *image; /* NULL: from the start */
	uint32_t pair;             /* whose it is, */
	uint64_t generation;       /* and the line that it lies on */
};

enum sim_request_kind { SIM_ATTACH, SIM_DETACH, SIM_CHECKPOINT, SIM_GROW };

/* What a worker asks, and what it is told: its socket. */
struct sim_request {
	bool pending;
	uint64_t serial; /* of the question: its process may die, and another use this */
	enum sim_request_kind kind;
	uint32_t pair;
	enum segue_attach_mode mode;
	uint8_t token[SEGUE_TOKEN_BYTES];
	uint64_t step;
	uint64_t generation;             /* OFFER: of that lease; and in the answer */
	const struct sim_states *states; /* OFFER: after step - 1 */
	const struct sim_kept *kept;
	const struct sim_token *restore;
	bool take;           /* the first attach of a newer handle */
	uint64_t lease;      /* RESTORE: given up for it; SIM_DETACH: given back. A generation */
	int64_t deadline;    /* it waits no longer for the lane; 0: as long as it takes */
	uint64_t owner;      /* the handle that asks: the oracle's, not told to anybody */
	bool sizes;          /* RESUME, over `lease`: from `step` on batches have batch_size rows */
	uint32_t batch_size; /* ... and in the answer */
	uint32_t ends;       /* GROW: so many of the world's; and in the answer of an attach */

	/* The answer. */
	bool granting;
	bool ended_one; /* a lease has ended for it */
	int rc;         /* SEGUE_EGONE: the server died */
	uint64_t first;
	uint32_t places;
	uint8_t fresh[SEGUE_TOKEN_BYTES];
	const struct segue_ring_header *ring;
	struct segue_carry_header *carry;
	const struct segue_lease_page *page;
	struct segue_image *image;
	struct sim_event *event; /* of the worker */
};

struct sim_server {
	bool alive, stopping;
	struct sim_event control; /* epoll: something to look at */
	struct sim_driver *driver;
};

/* Starts a server. */
struct sim_server *sim_server_start(void);
/* Its actors have been killed: what follows. */
void sim_server_died(struct sim_server *server);
/* Asks it to end in order; sim_server_stopped() follows. A fault. */
void sim_server_stop(struct sim_server *server);
/* The eventfd of a lease; nothing happens if its server is dead. */
void sim_doorbell(struct sim_server *server, uint32_t pair);
/* The server loses the connection of one lease; a fault. */
void sim_server_cut(struct sim_server *server, uint32_t pair);
/* The worker has lost it, and the server will see that. */
void sim_server_lose(struct sim_server *server, uint32_t pair, uint64_t generation);

/* The workers' processes as the server sees them (worker.c). */
bool sim_process_alive(int64_t pid);
int64_t sim_pid_of(uint32_t worker);
/* The i-th socket of SIM_REQUESTS: a thread's; its process; and what the server knows of that. */
struct sim_request *sim_request_of(uint32_t i);
int64_t sim_process_asking(uint32_t i);
struct segue_holder sim_holder_asking(uint32_t i);
/* It has ended in order: its process exits (main.c). */
void sim_server_stopped(void);
/* Storage failed: somebody will start the server again (main.c). */
void sim_storage_failed(void);

#endif
