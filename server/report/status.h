/* The report of a running server. */
#ifndef SEGUE_REPORT_STATUS_H
#define SEGUE_REPORT_STATUS_H

#include "session/server.h"

/* JSON, malloc'd; on the loop's thread. `stream`: this one alone (SEGUE_ENOTFOUND); "": all. */
int segue_report_status(const struct segue_server *server, const char *stream, char **out);

#endif
