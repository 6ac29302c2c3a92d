// SPDX-License-Identifier: GPL-2.0-only
/*
 * CVE-2024-27437: an interrupt that comes while it is set up is disabled twice, and enabled once.
 *
 * For a device without DisINTx (vfio_pci.nointxmask=1) request_irq() enabled the line, and
 * vfio_intx_set_signal() disabled it again where it was masked. Between the two the handler runs:
 * it masks and disables, too. The unmasking that follows enables it once.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>

#define RAISE 0x60 /* registers of edu: the interrupt is pending from one write to the other */
#define LOWER 0x64
#define ROUNDS 100

static int device;

static unsigned long long offset_of(unsigned int index)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };

	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info))
		err(2, "VFIO_DEVICE_GET_REGION_INFO");
	return info.offset;
}

static void write_register(unsigned int offset, uint32_t value)
{
	static unsigned long long bar;

	bar = bar ?: offset_of(VFIO_PCI_BAR0_REGION_INDEX) + 1;
	if (pwrite(device, &value, 4, bar - 1 + offset) != 4)
		err(2, "BAR 0");
}

/* DisINTx in the command register, with memory on. */
static void write_command(uint16_t value)
{
	static unsigned long long config;

	value |= PCI_COMMAND_MEMORY;
	config = config ?: offset_of(VFIO_PCI_CONFIG_REGION_INDEX);
	if (pwrite(device, &value, 2, config + PCI_COMMAND) != 2)
		err(2, "PCI_COMMAND");
}

/* `eventfd` is for VFIO_IRQ_SET_DATA_EVENTFD. */
static int set_intx(uint32_t flags, uint32_t count, int32_t eventfd)
{
	struct {
		struct vfio_irq_set head;
		int32_t eventfd;
	} set = {
		.head = {
			.argsz = sizeof(set.head) +
				 (flags & VFIO_IRQ_SET_DATA_EVENTFD ? sizeof(set.eventfd) : 0),
			.flags = flags,
			.index = VFIO_PCI_INTX_IRQ_INDEX,
			.count = count,
		},
	};

	memcpy(set.head.data, &eventfd, sizeof(eventfd));
	return ioctl(device, VFIO_DEVICE_SET_IRQS, &set);
}

static void open_device(void)
{
	const char *bdf = getenv("VFIO_LAB_BDF"), *path = getenv("VFIO_LAB_GROUP");
	int container = open("/dev/vfio/vfio", O_RDWR), group;

	if (!path || container < 0) {
		printf("1..0 # SKIP the kernel has no groups\n");
		exit(0);
	}
	group = open(path, O_RDWR);
	if (group < 0 || ioctl(group, VFIO_GROUP_SET_CONTAINER, &container))
		err(2, "%s", path);
	if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU))
		err(2, "VFIO_SET_IOMMU");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	if (device < 0)
		err(2, "VFIO_GROUP_GET_DEVICE_FD");
	write_command(0);
}

#define EVENTFD (VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER)
#define NONE VFIO_IRQ_SET_DATA_NONE

static int fires(int fd)
{
	struct pollfd wanted = { .fd = fd, .events = POLLIN };
	uint64_t count;

	if (poll(&wanted, 1, 1000) <= 0)
		return 0;
	return read(fd, &count, sizeof(count)) == sizeof(count);
}

/* Sets the interrupt up while the line is up: it comes at once. Does it come once more? */
static int fires_again(int fd)
{
	if (set_intx(NONE | VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0) || set_intx(EVENTFD, 1, fd))
		err(2, "VFIO_DEVICE_SET_IRQS");
	if (!fires(fd))
		errx(2, "a pending interrupt does not come");
	if (set_intx(NONE | VFIO_IRQ_SET_ACTION_UNMASK, 1, 0))
		err(2, "VFIO_IRQ_SET_ACTION_UNMASK");
	return fires(fd);
}

/* The handler has to run where the interrupt is set up, on whichever CPU that may be. */
static void move_to(int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		err(2, "sched_setaffinity");
}

int main(void)
{
	int cpus = sysconf(_SC_NPROCESSORS_ONLN), fd = eventfd(0, EFD_NONBLOCK), good = 1;

	open_device();
	if (set_intx(EVENTFD, 1, fd))
		err(2, "VFIO_DEVICE_SET_IRQS");
	write_register(RAISE, 1);
	if (!fires(fd))
		errx(2, "the interrupt does not come");
	for (int i = 0; good && i < ROUNDS; i++) {
		move_to(i % cpus);
		good = fires_again(fd);
	}
	printf("a pending interrupt that is unmasked %s\n",
	       good ? "fires again" : "is never heard of again");
	write_register(LOWER, 1);
	return !good;
}
