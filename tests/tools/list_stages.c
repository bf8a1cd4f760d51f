// Prints every stage of every update table, a line each, for the fault tests: "table stage commit undo".
// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>

#include "cpr/internal.h"

int main(void)
{
	const struct stage_table *const tables[] = {
		&transfer_source_table, &transfer_target_table, &exec_source_table,
		&exec_target_table,	&exec_rehearsal_table,
	};

	for (size_t t = 0; t < G_N_ELEMENTS(tables); t++)
		for (unsigned int i = 0; i < tables[t]->n_stages; i++)
			printf("%s %s %d %d\n", tables[t]->name, tables[t]->stages[i].name,
			       tables[t]->stages[i].commit, tables[t]->stages[i].undo != NULL);
	return 0;
}
