// Types that commands of several families have in their arguments and results.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "monitor/schema.h"

/** OBJECT_TYPE() - An object type: OBJECT_TYPE(kvm_info, {"enabled", &schema_bool}, ...) */
#define OBJECT_TYPE(name_, ...)                                                      \
	static const struct schema_member name_##_members[] = {__VA_ARGS__, {NULL}}; \
	static const struct schema name_ = {.kind = SCHEMA_OBJECT, .members = name_##_members}

/** ENUM_TYPE() - An enum type of these names */
#define ENUM_TYPE(name_, ...)                                            \
	static const char *const name_##_values[] = {__VA_ARGS__, NULL}; \
	static const struct schema name_ = {.kind = SCHEMA_ENUM, .values = name_##_values}

/** LIST_TYPE() - An array type */
#define LIST_TYPE(name_, element_) \
	static const struct schema name_ = {.kind = SCHEMA_ARRAY, .element = &(element_)}

/* What migrate and its relatives take and give (types_migration.c). */
extern const struct schema type_migration_status, type_migrate, type_migrate_incoming,
	type_migrate_continue, type_migrate_set_parameters, type_migrate_parameters,
	type_migrate_set_capabilities, type_migrate_capabilities, type_migration_info,
	type_update_record;
