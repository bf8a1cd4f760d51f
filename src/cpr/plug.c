// Hot plug and updates: when devices may come and go.
// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"
#include "cpr/internal.h"

/*
 * From the offer on, a successor builds what it was told: nothing may change until it has the guest, or
 * has not got it.  A successor whose command line describes the VM may add what its predecessor has
 * beyond that, until its main channel is named.
 */
static bool check_plug(const struct update *update, const char *command, GError **error)
{
	const struct incoming *in = update->incoming;

	if (update->outgoing || (in && update->config->explicit_vm && !incoming_may_plug(in)))
		return error_set_generic(error, "%s not allowed while migrating", command);
	if (in && !update->config->explicit_vm)
		return error_set_generic(error,
					 "%s: this process takes its devices from its predecessor; "
					 "change them there before the update, or here after it",
					 command);
	return in || (update->owner && owner_held(update->owner)) ||
	       error_set_generic(error, "the guest runs in another process now; quit this one");
}

bool update_device_add(struct update *update, const json_t *args, GError **error)
{
	if (!check_plug(update, "device_add", error) ||
	    (!update->incoming && !update_judge_plug(update, error)))
		return false;
	return update->machine ? machine_device_add(update->machine, args, error)
			       : machine_device_add_early(update->config, args, error);
}

bool update_device_del(struct update *update, const char *id, GError **error)
{
	return check_plug(update, "device_del", error) &&
	       machine_device_del(update->machine, id, error);
}
