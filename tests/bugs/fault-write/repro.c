// SPDX-License-Identifier: GPL-2.0-only
/*
 * A write of page responses from memory that cannot be read says that it was written.
 *
 * iommufd_fault_fops_write() took what copy_from_user() returns, the bytes that are missing, for
 * an error, and returned it: a positive number, which means so many bytes.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#if __has_include(<linux/iommufd.h>)
#include <linux/iommufd.h>
#endif

#ifdef IOMMU_FAULT_QUEUE_ALLOC
int main(void)
{
	struct iommu_fault_alloc alloc = { .size = sizeof(alloc) };
	void *nowhere = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int iommufd = open("/dev/iommu", O_RDWR);
	ssize_t written;

	if (iommufd < 0)
		err(2, "/dev/iommu");
	if (ioctl(iommufd, IOMMU_FAULT_QUEUE_ALLOC, &alloc))
		err(2, "IOMMU_FAULT_QUEUE_ALLOC");
	written = write(alloc.out_fault_fd, nowhere, sizeof(struct iommu_hwpt_page_response));
	printf("write() of a response that is nowhere: %zd %s\n", written,
	       written < 0 ? strerror(errno) : "bytes");
	return written >= 0;
}
#else
int main(void)
{
	printf("1..0 # SKIP the kernel's headers have no fault queue\n");
	return 0;
}
#endif
