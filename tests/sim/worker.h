/*
 * The worker processes of a run: take leases, batches and checkpoints, hold views, commit, release
 * in any order, sleep, reconnect.
 *
 * What a real process does through lib/client is written out here; positions, words and sleep go
 * through the real track.c.
 */
#ifndef SEGUE_SIM_WORKER_H
#define SEGUE_SIM_WORKER_H

#include "driver.h"

void sim_workers_begin(void);
/* Starts a process in place `worker`. */
void sim_worker_start(uint32_t worker);
/* Its actor has been killed: what follows. */
void sim_worker_died(uint32_t worker);
/* The server died, or came back (NULL: none runs). */
void sim_workers_see(struct sim_server *server);
/* The place of a process; -1: it is none of them. */
int sim_worker_of(int process);
/* The training of a group goes back to its last checkpoints, all lanes. */
void sim_restore_group(uint32_t group);

#endif
