// SPDX-License-Identifier: GPL-2.0-only
/*
 * A fault queue that cannot be told of is freed, and then its file is released.
 *
 * iommufd_fault_alloc() undid what it had done in the wrong order: fput() is for later, kfree() is
 * for now, and iommufd_fault_fops_release() uses what is gone. Where freed memory is zeroed
 * (init_on_free=1) that is a NULL; KASAN sees it anywhere.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#if __has_include(<linux/iommufd.h>)
#include <linux/iommufd.h>
#endif

#ifdef IOMMU_FAULT_QUEUE_ALLOC
int main(void)
{
	struct iommu_fault_alloc *alloc = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
					       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int iommufd = open("/dev/iommu", O_RDWR);

	if (iommufd < 0 || alloc == MAP_FAILED)
		err(2, "/dev/iommu");
	alloc->size = sizeof(*alloc);
	/* the answer has no place to go to */
	if (mprotect(alloc, 4096, PROT_READ))
		err(2, "mprotect");
	if (!ioctl(iommufd, IOMMU_FAULT_QUEUE_ALLOC, alloc) || errno != EFAULT)
		err(2, "IOMMU_FAULT_QUEUE_ALLOC: expected EFAULT");
	printf("refused, and undone\n");
	return 0;
}
#else
int main(void)
{
	printf("1..0 # SKIP the kernel's headers have no fault queue\n");
	return 0;
}
#endif
