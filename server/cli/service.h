/*
 * What `segue serve` is told beside its directory: limits, roots, who may connect, the service
 * manager's socket.
 */
#ifndef SEGUE_CLI_SERVICE_H
#define SEGUE_CLI_SERVICE_H

#include "cli/cli.h"
#include "serve/run.h"

struct segue_cli_service {
	struct segue_rules rules; /* owned, with what they point to */
	int listen_fd;
};

/*
 * Limits, roots and who may connect, from the command line, else the environment. SEGUE_EINVAL says
 * which option or variable is wrong. However it ends, segue_cli_service_finish() frees what it
 * took.
 */
int segue_cli_service_init(
	struct segue_cli_service *service, const struct segue_cli_options *options);
/*
 * The service manager: an embedded server has none. *socket, malloc'd, is replaced by the path of
 * the manager's socket, if there is one.
 */
int segue_cli_service_socket(
	struct segue_cli_service *service, const struct segue_cli_options *options, char **socket);
/* Fills the options in; they point into the service. */
void segue_cli_service_apply(
	const struct segue_cli_service *service, struct segue_options *options);
void segue_cli_service_finish(struct segue_cli_service *service);

#endif
