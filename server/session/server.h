/*
 * The server: one store directory, its streams, the sessions of those who use them.
 *
 * All of this belongs to the loop's thread. Loader threads and the committer hand their results
 * over with segue_loop_post().
 */
#ifndef SEGUE_SESSION_SERVER_H
#define SEGUE_SESSION_SERVER_H

#include <sys/types.h>

#include "core/frame.h"
#include "core/wire.h"
#include "engine/committer.h"
#include "engine/grant.h"
#include "guard/roots.h"
#include "guard/user.h"
#include "lane/lease.h"
#include "os/loop.h"
#include "os/pool.h"
#include "store/store.h"

#define SEGUE_RECONNECT_GRACE_NS INT64_C(10000000000)

struct segue_session;
struct segue_stream;
struct segue_attach;
struct segue_checkpoint;
struct segue_upload;
struct segue_errand;

struct segue_options {
	const char *dir;
	const char *socket_path; /* NULL: <dir>/segue.sock */
	bool embedded;           /* started by a client: end when the last one has left */
	int ready_fd;            /* told when the socket listens; -1: nobody waits */
	int listen_fd;           /* a socket that listens already; -1: to be made */
	struct segue_limits limits;
	struct segue_roots *roots; /* files are read beneath these alone; NULL: anywhere */
	/* Who may connect, beside root and the server's own user. */
	const uid_t *users;
	const gid_t *groups;
	size_t user_count, group_count;
	uint64_t map_bytes; /* the store cannot grow beyond; 0: no limit of ours */
};

struct segue_server {
	struct segue_options options;
	char *dir; /* absolute */
	uint64_t dir_device, dir_inode;
	char *socket_path; /* absolute */
	struct segue_loop *loop;
	struct segue_store *store;
	struct segue_committer *committer;
	struct segue_listener *listener;
	struct segue_session *sessions;
	struct segue_session *leaving; /* closed, with fds that the peer has not read */
	struct segue_user *users;
	struct segue_stream *streams;
	struct segue_checkpoint *checkpoints; /* that wait for a step */
	uint64_t instance;                    /* differs for each start */
	uint64_t next_id;     /* of leases, openings, sessions, uploads, private groups */
	uint32_t next_stream; /* id of the next new stream */
	int64_t started_ms;   /* Unix time */
	int64_t started_ns;
	int64_t watchdog_at; /* the service manager is told that we live */
	int storage_error;
	char storage_detail[SEGUE_ERROR_TEXT];
	int64_t unwritten_ns; /* since when last commits cannot be written; 0: they can */
	unsigned jobs;        /* given to other threads and not come back */
	int64_t logged_ns;    /* when long work was logged last */
	int unverified;       /* why the store was not; 0: it was, or needed not be */
	char unverified_detail[SEGUE_ERROR_TEXT];
	bool had_sessions; /* somebody was here */
	bool told;         /* by a signal to stop */
	bool stopping;     /* SIGTERM: leases are being written */
	bool ended;        /* the loop has: no task is begun any more */
};

/* Exit status of a server, not embedded, that gets SIGBUS; an embedded one ends with that of ESTORE. */
#define SEGUE_SERVER_UNREADABLE 3

/* Runs until SIGTERM, or, embedded, until nobody uses it. 0 or a negative code. */
int segue_server_run(const struct segue_options *options);

/* Random bytes from the kernel. */
void segue_random(void *out, size_t size);

/* ---- Streams (stream.c) ---- */

/* One (lane, group): who has it, and what is in force. */
struct segue_ledger {
	struct segue_stream *stream;
	struct segue_place place;
	struct segue_lease lease;
	uint64_t durable;              /* step on disk when no grant is in force */
	struct segue_grant *grant;     /* HELD or ENDING */
	struct segue_session *session; /* whose lease it is; NULL while ENDING */
	uint64_t lease_id;
	struct segue_user *user; /* who pays for the grant, made or in force; NULL: there is none */
	uint64_t memory;         /* what for */
	struct segue_session *detaching; /* waits for the end of ENDING; or NULL */
	uint64_t detach_serial;
	struct segue_watch event;      /* the worker wakes the server */
	struct segue_opening *opening; /* through which it was attached */
	struct segue_attach *waiting;  /* requests for this lane, oldest first */
	struct segue_attach *loading;  /* requests whose uploads are being read */
	struct segue_attach *making;   /* GRANTING: the request */
	unsigned pins;                 /* checkpoints that read the grant on other threads */
	unsigned checkpoints;          /* that mean this ledger, running or waiting */
	bool written;                  /* ENDING: the last commit is on disk */
	bool listed;                   /* among the stream's `in_use`, linked by: */
	struct segue_ledger *next;
};

enum segue_stream_state { SEGUE_STREAM_OPENING, SEGUE_STREAM_OPEN, SEGUE_STREAM_FAILED };

struct segue_stream {
	struct segue_server *server;
	struct segue_stream *next;
	enum segue_stream_state state;
	struct segue_spec *spec; /* the store's, or the first client's */
	uint32_t id;
	uint64_t fingerprint[2];
	struct segue_plan_spec plan; /* lane is set by its users */
	struct segue_index_keeper keeper;
	_Atomic bool
		given_up;  /* by the loop: no session has it open, or the server is being stopped */
	bool forget_index; /* the kept one is of files that have changed */
	struct segue_source *source;
	struct segue_user *user; /* who opened it, and pays for its threads, tables and files */
	uint64_t taken[SEGUE_LIMIT_COUNT]; /* of that user */
	struct segue_reader reader;        /* for whom its files are read */
	struct segue_pool *pool;
	struct segue_ledger *ledgers; /* one a lane, group 0; NULL if persist is false */
	/* Those that somebody has, has reserved or asks for; all there are if persist is false. */
	struct segue_ledger *in_use;
	struct segue_opening *openings; /* of all sessions */
	struct segue_job job;           /* the opening */
	int rc;                         /* its result */
	char detail[SEGUE_ERROR_TEXT];
	uint32_t users; /* openings, jobs, leases not free */
};

/* A session's handle of a stream: the same stream, its own runtime options. */
struct segue_opening {
	uint64_t id;
	struct segue_stream *stream;
	struct segue_session *session; /* NULL: gone, kept for a lease that still ends */
	struct segue_spec *spec;
	uint64_t serial; /* of the request, until it is answered */
	bool answered;
	unsigned leases;            /* that use its spec */
	struct segue_opening *next; /* in the stream */
	struct segue_opening *next_of_session;
};

/* Requests of a session. They answer it, now or later. `spec` is taken over. */
void segue_stream_open_request(
	struct segue_session *session, uint64_t serial, struct segue_spec *spec);
/* `upload` is taken over; NULL: none. */
void segue_attach_request(struct segue_session *session, const struct segue_message *message,
	struct segue_upload *upload);
void segue_stream_close_request(struct segue_session *session, uint64_t serial, uint64_t stream);
void segue_detach_request(struct segue_session *session, uint64_t serial, uint64_t lease);
void segue_flush_request(struct segue_session *session, uint64_t serial, uint64_t lease);
void segue_checkpoint_request(struct segue_session *session, const struct segue_message *message);
/* A checkpoint that the store holds (stored.c). */
void segue_stored_request(struct segue_session *session, const struct segue_message *message);
/* An answered opening of this session; NULL: none such. */
struct segue_opening *segue_opening_find(struct segue_session *session, uint64_t id);
/* Frees it if neither a session nor a lease needs it, and then its stream if that was the last. */
void segue_opening_release(struct segue_opening *opening);
/* One use less; the last frees it. */
void segue_stream_release(struct segue_stream *stream);
/* The session is gone: its leases end, its requests are forgotten. */
void segue_stream_session_gone(struct segue_session *session);
/* Time passes: reservations, waiting requests. Returns when it wants to be called again. */
int64_t segue_stream_tick(struct segue_server *server, int64_t now);
/* Storage failed (code), or works again (0). */
void segue_stream_storage(struct segue_server *server, int code, const char *detail);
/* Ends all leases for a stop; their holders may offer them to the next server. True if none is
 * left. */
bool segue_stream_stop(struct segue_server *server);
/* Frees what is left when the loop has ended. */
void segue_stream_destroy_all(struct segue_server *server);

/* Checkpoints that wait for their step (checkpoint.c). */
int64_t segue_checkpoints_tick(struct segue_server *server, int64_t now);
void segue_checkpoints_session_gone(struct segue_session *session);

/* ---- Sessions (session.c) ---- */

struct segue_upload {
	struct segue_upload *next;
	struct segue_user *user; /* who pays */
	uint64_t id;
	size_t size;
	struct segue_shm shm;
};

/* Reads an upload into private memory and gives its segment back: on a thread of the user's. */
int segue_upload_read(struct segue_upload *upload, uint8_t **out, size_t *size);
/* Frees it; on the loop's thread. NULL is fine. */
void segue_upload_destroy(struct segue_upload *upload);

struct segue_session {
	struct segue_server *server;
	struct segue_session *next;
	uint64_t id;
	struct segue_watch socket, process; /* process.fd -1: no pidfd */
	struct segue_holder holder;
	struct segue_reader peer;
	struct segue_user *user;
	char program[64];
	bool greeted, closing;
	bool waiting;     /* for room in the socket */
	bool paused;      /* it has sent too fast, and is not read */
	uint32_t events;  /* that are watched for */
	int64_t hello_by; /* must have said HELLO */
	int64_t frame_by; /* the frame that was begun must be whole; 0: none was */
	struct segue_rate rate;
	uint64_t lanes;    /* held, or asked for */
	unsigned fds_sent; /* since it last had read everything */
	unsigned fds_paid; /* of those, beyond what a connection has: its user's */
	int64_t retry_at;  /* the kernel took no more fds; 0: it did */
	unsigned requests; /* in flight, of those that take long */
	struct segue_errand *errands;
	struct segue_frame_reader *reader;
	struct segue_frame_queue *queue;
	struct segue_arena arena;
	struct segue_upload *uploads;
	struct segue_opening *openings;
};

/* One more request that takes long is in flight. SEGUE_ELIMIT: there are too many; SEGUE_EGONE: the
 * server is being stopped. */
int segue_session_take_request(struct segue_session *session);

/* Long work for a session, on a thread of its user's. */
struct segue_errand {
	struct segue_task task;
	struct segue_errand *next;     /* of the session */
	struct segue_session *session; /* NULL: gone */
	uint64_t serial;
	int (*work)(struct segue_errand *errand);
	_Atomic bool
		given_up; /* by the loop: the session is gone, or the server is being stopped */
	int rc;
	char detail[SEGUE_ERROR_TEXT];
};

/*
 * Has it done: a request in flight. `work` returns a code, which goes to `rc` with its detail; it is
 * not called any more, or should soon return, when nobody waits for it. `done` calls
 * segue_errand_end() first. SEGUE_ELIMIT, SEGUE_ENOMEM, SEGUE_ESYSTEM, SEGUE_EGONE: nothing is done.
 */
int segue_errand_run(struct segue_session *session, uint64_t serial, struct segue_errand *errand,
	int (*work)(struct segue_errand *errand), void (*done)(struct segue_task *task));
/* It is over: the session to be answered; NULL: it is gone. */
struct segue_session *segue_errand_end(struct segue_errand *errand);
/* A segue_interrupt_fn for `work`; `arg` is the errand. */
int segue_errand_given_up(void *arg);
/* The server is being stopped. */
void segue_errands_give_up(struct segue_server *server);

/* Takes over a connected socket. A peer that may not connect, or not once more, is told why. */
void segue_session_create(struct segue_server *server, int socket);
/* Tells whoever is at the other end why it is not served, with this thread's detail; then closes. */
void segue_session_refuse(int socket, int code);
/* The session of that id; NULL: it is gone. */
struct segue_session *segue_session_find(struct segue_server *server, uint64_t id);
/* Sends a message with fds (which stay the caller's); a peer that does not read is dropped. */
void segue_session_send(struct segue_session *session, const struct segue_message *message,
	const int *fds, size_t fd_count);
/* FAILURE with this thread's detail, or the one given. */
void segue_session_fail(struct segue_session *session, uint64_t serial, int code);
void segue_session_fail_text(
	struct segue_session *session, uint64_t serial, int code, const char *detail);
/* BULK: the bytes in a segment of their own. */
void segue_session_send_bulk(struct segue_session *session, uint64_t serial, uint64_t step,
	const void *bytes, size_t size);
/* Ends the session; safe inside its own callbacks. */
void segue_session_close(struct segue_session *session);
void segue_session_tick(struct segue_server *server, int64_t now);
/* Gives back what sessions have taken for fds that their peers have read since. */
void segue_session_settle(struct segue_server *server);
/* Frees those that are left when the loop has ended. */
void segue_session_destroy_all(struct segue_server *server);

/* ---- Listener (listener.c) ---- */

struct segue_listener;
/*
 * Binds and listens, or takes over the socket of the options. Under the store's lock: a stale socket
 * is removed, a live one is SEGUE_EBUSY.
 */
int segue_listener_create(
	struct segue_server *server, const char *path, struct segue_listener **out);
/* Tries again to accept where there was no descriptor for it. */
void segue_listener_tick(struct segue_listener *listener, int64_t now);
/* Unlinks the socket. NULL is fine. */
void segue_listener_destroy(struct segue_listener *listener);

#endif
