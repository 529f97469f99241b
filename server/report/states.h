/* The report of the states under a key. */
#ifndef SEGUE_REPORT_STATES_H
#define SEGUE_REPORT_STATES_H

#include "store/store.h"

/* JSON, malloc'd. `stream`: in it alone; "": in all. SEGUE_ENOTFOUND: no such stream or key. */
int segue_report_get(struct segue_store *store, const char *dir, const char *stream,
	const char *key, char **out);

#endif
