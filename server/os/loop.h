/*
 * The server's event loop: fds by epoll, one timer, signals, and calls posted by other threads.
 *
 * Everything runs on the thread that calls segue_loop_run(); only segue_loop_post() may be called
 * from others.
 */
#ifndef SEGUE_OS_LOOP_H
#define SEGUE_OS_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct segue_loop;

/* A watched fd. The owner keeps it in place while it is watched. */
struct segue_watch {
	int fd;
	void (*ready)(struct segue_watch *watch, uint32_t events);
};

int segue_loop_create(struct segue_loop **out);
/* Runs what was posted and never ran. NULL is fine. */
void segue_loop_destroy(struct segue_loop *loop);

/* Watches for `events` (EPOLLIN, EPOLLOUT, ...). SEGUE_ESYSTEM. */
int segue_loop_add(struct segue_loop *loop, struct segue_watch *watch, uint32_t events);
int segue_loop_change(struct segue_loop *loop, struct segue_watch *watch, uint32_t events);
/* After this its `ready` is not called again, not even for events that were collected already. */
void segue_loop_remove(struct segue_loop *loop, struct segue_watch *watch);

/* Calls fn(arg) on the loop's thread, soon, in the order of posting. From any thread. */
void segue_loop_post(struct segue_loop *loop, void (*fn)(void *arg), void *arg);

/* Something was begun whose end will be posted; it has come. */
void segue_loop_await(struct segue_loop *loop);
void segue_loop_arrive(struct segue_loop *loop);
/* How many have not come yet: who stops in order waits for them. */
unsigned segue_loop_awaited(const struct segue_loop *loop);

/*
 * Runs until segue_loop_stop(). `tick` is called at least every `segue_loop_tick_within` and after
 * each round of events; `signalled` for each signal of the mask (which all threads have blocked).
 */
int segue_loop_run(struct segue_loop *loop, void (*tick)(void *arg, int64_t now),
	void (*signalled)(void *arg, int signal), void *arg);
/* The next tick comes at `when` (monotonic ns) at the latest. */
void segue_loop_tick_within(struct segue_loop *loop, int64_t when);
void segue_loop_stop(struct segue_loop *loop);

/* Blocks the signals that the loop handles (SIGTERM, SIGINT) in this thread and those it will
 * start. */
void segue_loop_block_signals(void);

#endif
