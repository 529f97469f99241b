/* What the store holds: its records of streams and lanes, and the report of them. */
#ifndef SEGUE_REPORT_CONTENTS_H
#define SEGUE_REPORT_CONTENTS_H

#include "store/lanes.h"

/* Records of one kind, collected: while the store is walked it must not be asked. */
struct segue_report_streams {
	struct segue_stream_record *record;
	size_t count;
	const char *only; /* "": all */
};

/* Of all streams, or of the one named `only`, which must outlive *list: SEGUE_ENOTFOUND. */
int segue_report_load_streams(struct segue_store *store, const char *dir, const char *only,
	struct segue_report_streams *list);
void segue_report_finish_streams(struct segue_report_streams *list);

struct segue_report_lanes {
	struct segue_report_lane {
		struct segue_place place;
		struct segue_lane_record record;
	} * entry; /* by group, then lane */
	size_t count;
};

/* Of all lanes of a stream. */
int segue_report_load_lanes(
	struct segue_store *store, uint32_t stream, struct segue_report_lanes *list);
void segue_report_finish_lanes(struct segue_report_lanes *list);

/* JSON, malloc'd: of all streams, or of one (SEGUE_ENOTFOUND); "": all. */
int segue_report_inspect(
	struct segue_store *store, const char *dir, const char *stream, char **out);

#endif
