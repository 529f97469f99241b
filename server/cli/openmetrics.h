/* A look at a server as OpenMetrics text, which Prometheus' text format (0.0.4) reads as well. */
#ifndef SEGUE_CLI_OPENMETRICS_H
#define SEGUE_CLI_OPENMETRICS_H

#include <stdio.h>

#include "cli/look.h"

/* Writes it, up to "# EOF". Rates are left out: who reads it makes them of the counters. */
void segue_openmetrics_write(const struct segue_look *look, FILE *file);

#endif
