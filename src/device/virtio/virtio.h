// Virtio devices over PCI: what every device model of this folder builds on.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include <linux/virtio_config.h>

#include "base/log.h"
#include "base/loop.h"
#include "device/pci/pci.h"
#include "device/virtio/virtqueue.h"

#define VIRTIO_QUEUES_MAX 64
#define VIRTIO_CONFIG_MAX 64

/**
 * DOC: Theory of operation
 *
 * Objects.  A model's run-time struct begins with struct virtio_device (which begins with the PCI
 * function), its state struct with struct virtio_pci_state.  virtio.c keeps status, features,
 * queues and the life cycle; virtio_pci.c is the register file; virtqueue.c the rings.
 *
 * Threads.  Registers are written by vCPUs.  Queues are handled in the device's thread: an I/O
 * thread, or the main thread for slow devices.  Both hold the device's lock (struct device) while
 * they touch the state.  What the model has handed to a backend is counted as in flight, from
 * virtio_pop() to virtio_push().
 *
 * Happy path.  The driver negotiates, places its rings, sets DRIVER_OK; from then on a kick makes a
 * queue's eventfd readable (through ioeventfd, or from the register write), the device's thread
 * calls the model's handle_queue(), which pops, works, pushes and ends with virtio_notify().
 *
 * Reset.  The guest's buffers belong to the device until it says otherwise, so a reset waits for
 * what is in flight: status reads back as before until the last virtio_push(), then as 0.
 *
 * Update.  Drain stops the handling of queues; what is in flight ends in its own time, and the last
 * virtio_push() tells the machine.  Kicks that come meanwhile stay where they are, in the rings.
 * Resume looks at every queue as if kicked and raises every queue's interrupt once: a spurious one is
 * harmless, a lost one is not.  So neither eventfd counters nor requests need to cross, but for those
 * that a model has shelved: of these it saves which they are.
 *
 * Unhappy path.  A ring that makes no sense breaks the device: DEVICE_NEEDS_RESET, a configuration
 * interrupt, one line in the log, and no more work until the driver resets it.
 */

/**
 * struct virtio_state - What survives of the common part
 * @driver_features: as the driver wrote them; final once status has FEATURES_OK
 * @device_feature_select, @driver_feature_select, @queue_select: selectors of registers
 * @config_vector: MSI-X vector of configuration changes
 * @status:	virtio 1.2 section 2.1
 * @isr:	section 4.1.4.5
 * @config_generation: section 2.5.3
 */
struct virtio_state {
	uint64_t driver_features;
	uint32_t device_feature_select;
	uint32_t driver_feature_select;
	uint16_t queue_select;
	uint16_t config_vector;
	uint8_t status;
	uint8_t isr;
	uint8_t config_generation;
	uint8_t pad0[1];
	uint32_t n_queues;
	uint8_t pad1[4];
	struct virtqueue_state queues[VIRTIO_QUEUES_MAX];
};

extern const struct state_desc virtio_desc;

/**
 * struct virtio_pci_state - How the state struct of every model begins
 */
struct virtio_pci_state {
	struct pci_function_state pci;
	struct virtio_state virtio;
};

extern const struct state_desc virtio_pci_desc;

/**
 * struct virtio_props - Properties that every model has
 * @event_idx, @indirect_desc: offer the feature
 * @ioeventfd:	Doorbells without leaving the kernel
 * @disable_legacy, @disable_modern: what is true anyway is accepted, the opposite refused
 */
struct virtio_props {
	bool event_idx;
	bool indirect_desc;
	bool ioeventfd;
	int disable_legacy; /* enum on_off_auto */
	bool disable_modern;
};

/* clang-format off */
/** VIRTIO_PROPS() - The rows for them; @type_ is the config struct, @member_ its virtio_props */
#define VIRTIO_PROPS(type_, member_, ioeventfd_) \
	{.name = "event_idx", .type = PROP_BOOL, .def = "on", \
	 .offset = offsetof(type_, member_.event_idx), \
	 .help = "tell the other side when to notify (VIRTIO_F_EVENT_IDX)"}, \
	{.name = "indirect_desc", .type = PROP_BOOL, .def = "on", \
	 .offset = offsetof(type_, member_.indirect_desc), \
	 .help = "take tables of descriptors (VIRTIO_F_INDIRECT_DESC)"}, \
	{.name = "ioeventfd", .type = PROP_BOOL, .def = ioeventfd_, \
	 .offset = offsetof(type_, member_.ioeventfd), \
	 .help = "doorbells do not leave the kernel"}, \
	{.name = "disable-legacy", .type = PROP_ON_OFF_AUTO, .def = "auto", \
	 .offset = offsetof(type_, member_.disable_legacy), \
	 .help = "on or auto: the device is modern only"}, \
	{.name = "disable-modern", .type = PROP_BOOL, .def = "off", \
	 .offset = offsetof(type_, member_.disable_modern), \
	 .help = "off: the device is modern only"}
/* clang-format on */

struct virtio_device;

/**
 * struct virtio_ops - What a model provides
 * @type:	Device type (virtio 1.2 section 5)
 * @class_code:	PCI class
 * @handle_queue: The driver kicked queue @q, or might have.  Context: the device's thread
 * @config_write: optional: the driver wrote @value to the configuration space.  Context: a vCPU
 * @driver_ok:	optional: features are final, queues are set up.  Context: a vCPU
 * @reset:	optional: forget what the driver told; nothing is in flight.  Context: any thread
 * @resumed:	optional: at the end of device_ops.resume.  Context: main thread
 *
 * The device's lock is held in all of them.
 */
struct virtio_ops {
	uint16_t type;
	uint32_t class_code;
	void (*handle_queue)(struct virtio_device *vdev, uint32_t q);
	void (*config_write)(struct virtio_device *vdev, uint32_t offset, uint32_t size,
			     uint32_t value);
	void (*driver_ok)(struct virtio_device *vdev);
	void (*reset)(struct virtio_device *vdev);
	void (*resumed)(struct virtio_device *vdev);
};

/**
 * struct virtio_params - What virtio_realize() makes a device from
 * @ops:	The model
 * @state:	Start of the model's state struct
 * @props:	Read from -device
 * @features:	Offered beside those that follow from @props
 * @n_queues, @queue_size: of the largest set-up
 * @n_vectors:	MSI-X vectors; 1 + @n_queues gives every queue its own
 * @config_bytes: Length of the configuration space
 * @thread:	Where queues are handled; NULL: the main thread.  Not owned
 */
struct virtio_params {
	const struct virtio_ops *ops;
	struct virtio_pci_state *state;
	const struct virtio_props *props;
	uint64_t features;
	uint32_t n_queues;
	uint16_t queue_size;
	uint32_t n_vectors;
	uint32_t config_bytes;
	struct io_thread *thread;
};

/**
 * struct virtio_queue - Run-time part of a queue
 * @kick_fd:	Its doorbell; -1 where the device has one for all queues
 * @n_in_flight: popped and not pushed
 * @doorbell_gpa: where @kick_fd is registered as an ioeventfd, 0 if it is not
 */
struct virtio_queue {
	struct virtqueue ring;
	struct virtio_device *vdev;
	int kick_fd;
	GSource *kick_watch;
	uint64_t doorbell_gpa;
	uint32_t n_in_flight;
};

/**
 * struct virtio_device - First member of every model's run-time struct
 * @vs:		The common state
 * @features:	Offered
 * @config:	The configuration space as the driver reads it
 * @kick_fd, @kicked: doorbell of a device without ioeventfd, and which queues it is for
 * @bar_gpa:	Where the registers are mapped, 0 for nowhere
 * @n_in_flight: popped and not pushed, of all queues
 * @quiesced:	No queue is handled
 * @draining:	... and the machine wants to hear when @n_in_flight becomes 0
 * @resetting:	The driver asked for a reset that waits for @n_in_flight
 * @realized:	virtio_realize() got to its end
 */
struct virtio_device {
	struct pci_function fn;
	const struct virtio_ops *ops;
	struct virtio_state *vs;
	uint64_t features;
	uint32_t n_queues;
	uint16_t queue_size;
	uint32_t config_bytes;
	uint8_t config[VIRTIO_CONFIG_MAX];
	struct virtio_queue queues[VIRTIO_QUEUES_MAX];
	int kick_fd;
	GSource *kick_watch;
	uint64_t kicked;
	struct io_thread *thread;
	uint64_t bar_gpa;
	uint8_t cfg_cap;
	uint32_t n_in_flight;
	bool ioeventfd;
	bool quiesced;
	bool draining;
	bool resetting;
	bool realized;
	struct log_limit log;
};

/* ---- for device_ops; each model calls them from its own ---- */

/** virtio_realize() - Set up the PCI function, queues and watches, quiesced. */
bool virtio_realize(struct virtio_device *vdev, const struct virtio_params *params, GError **error);

/** virtio_unrealize() - Undo virtio_realize(); accepts half of it.  The thread must still run. */
void virtio_unrealize(struct virtio_device *vdev);

/** virtio_reset() - device_ops.reset; what is in flight, if anything, completes it later. */
void virtio_reset(struct device *dev);

/** virtio_drain(), virtio_in_flight() - device_ops of these names. */
bool virtio_drain(struct device *dev);
uint32_t virtio_in_flight(struct device *dev, GString *text);

/** virtio_resume() - device_ops.resume. */
void virtio_resume(struct device *dev);

/** virtio_capture() - device_ops.capture. */
bool virtio_capture(struct device *dev, GError **error);

/** virtio_at_rest() - device_ops.at_rest: what was popped was not. */
void virtio_at_rest(struct device *dev, void *state);

/** virtio_apply() - device_ops.apply; false if the state is of another device. */
bool virtio_apply(struct device *dev, GError **error);

/* ---- for models; the device's lock is held ---- */

/** virtio_has_feature() - Whether the driver accepted feature @bit. */
static inline bool virtio_has_feature(const struct virtio_device *vdev, unsigned int bit)
{
	return vdev->vs->driver_features >> bit & 1;
}

/** virtio_queue_live() - Whether queue @q may be worked on now. */
bool virtio_queue_live(const struct virtio_device *vdev, uint32_t q);

/**
 * virtio_pop() - Take the next buffer of queue @q, which counts as in flight from then on
 * @chain:	As for virtqueue_pop()
 * Return: false if there is none, or the device just broke.
 */
bool virtio_pop(struct virtio_device *vdev, uint32_t q, struct virtqueue_chain *chain);

/** virtio_unpop() - Put the buffer popped last back. */
void virtio_unpop(struct virtio_device *vdev, uint32_t q);

/**
 * virtio_shelve() - Set a buffer of queue @q aside: the machine is to stop with an I/O error
 *
 * The device keeps it, and it does not count as in flight any more: nothing on the host holds it.
 * virtio_unshelve() before its request is repeated, from virtio_ops.resumed on.  A reset forgets
 * shelved buffers: virtio_ops.reset is where the model lets go of its own part.  Where one is under
 * way already (@vdev->resetting) nothing is shelved, but pushed.
 */
void virtio_shelve(struct virtio_device *vdev, uint32_t q);
void virtio_unshelve(struct virtio_device *vdev, uint32_t q);

/** virtio_pop_again() - Read a buffer anew that was shelved.  False if the device just broke. */
bool virtio_pop_again(struct virtio_device *vdev, uint32_t q, struct virtqueue_chain *chain);

/** virtio_push() - Give a buffer back; the driver hears of it at the next virtio_notify(). */
void virtio_push(struct virtio_device *vdev, uint32_t q, uint16_t head, uint32_t len_bytes);

/** virtio_notify() - Raise queue @q's interrupt if the driver wants to hear of what was pushed. */
void virtio_notify(struct virtio_device *vdev, uint32_t q);

/** virtio_notify_config() - The configuration space has changed: next generation, interrupt. */
void virtio_notify_config(struct virtio_device *vdev);

/** virtio_break() - The driver's @why-shaped nonsense on queue @q: DEVICE_NEEDS_RESET. */
void virtio_break(struct virtio_device *vdev, uint32_t q, const char *why);

/** virtio_kick() - Make the device's thread look at queue @q soon.  Any thread, lock or not. */
void virtio_kick(struct virtio_device *vdev, uint32_t q);
