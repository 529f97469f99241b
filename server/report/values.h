/* Values that several reports have. Each writes one, as those of json.h do. */
#ifndef SEGUE_REPORT_VALUES_H
#define SEGUE_REPORT_VALUES_H

#include "core/spec.h"
#include "report/json.h"

/* As text, in UTC; null if `unix_ms` is 0. */
void segue_report_put_date(struct segue_json *json, const char *name, int64_t unix_ms);
void segue_report_put_fingerprint(
	struct segue_json *json, const char *name, const uint64_t value[2]);
/* "shape": the dims of a field. */
void segue_report_put_shape(struct segue_json *json, const struct segue_field *field);
/* "spec": all that it says. */
void segue_report_put_spec(struct segue_json *json, const struct segue_spec *spec);

#endif
