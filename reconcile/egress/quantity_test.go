//go:build integration && internet

package egress_test

import "k8s.io/apimachinery/pkg/api/resource"

func resourceOf(text string) resource.Quantity { return resource.MustParse(text) }
