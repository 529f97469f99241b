/* Linked lists: <sys/queue.h>, and what it lacks. The links lie in what is listed. */
#ifndef SEGUE_CORE_LIST_H
#define SEGUE_CORE_LIST_H

#include <stddef.h>
#include <sys/queue.h>

/* The struct of that type whose `member` lies at `pointer`. */
#define SEGUE_CONTAINER(pointer, type, member)                                                     \
	((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* Like LIST_FOREACH; `item` may be removed, and freed, meanwhile. `next` is of its type. */
#define LIST_FOREACH_SAFE(item, head, field, next)                                                 \
	for ((item) = LIST_FIRST(head); (item) && ((next) = LIST_NEXT(item, field), 1);            \
		(item) = (next))
#define TAILQ_FOREACH_SAFE(item, head, field, next)                                                \
	for ((item) = TAILQ_FIRST(head); (item) && ((next) = TAILQ_NEXT(item, field), 1);          \
		(item) = (next))

#endif
