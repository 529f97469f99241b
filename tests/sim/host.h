/*
 * What the simulator puts in place of the host: memory that is freed when a run ends, so that a
 * process that was killed leaks nothing, and mutexes that are scheduling points.
 *
 * Included before every source of the simulator (cc -include), the files under test as well.
 */
#ifndef SEGUE_SIM_HOST_H
#define SEGUE_SIM_HOST_H

#include <pthread.h>
#include <stdlib.h>

void *sim_malloc(size_t size);
void *sim_calloc(size_t count, size_t size);
void *sim_realloc(void *block, size_t size);
void sim_free(void *block);
/* Frees all that is left. */
void sim_free_all(void);

int sim_mutex_init(pthread_mutex_t *mutex);
int sim_mutex_lock(pthread_mutex_t *mutex);
int sim_mutex_unlock(pthread_mutex_t *mutex);

#define malloc                          sim_malloc
#define calloc                          sim_calloc
#define realloc                         sim_realloc
#define free                            sim_free
#define pthread_mutex_init(mutex, attr) sim_mutex_init(mutex)
#define pthread_mutex_destroy(mutex)    ((void)(mutex))
#define pthread_mutex_lock              sim_mutex_lock
#define pthread_mutex_unlock            sim_mutex_unlock

#endif
