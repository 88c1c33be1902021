"""Who bought what. Asks `users` who somebody is and `prices` what something costs, both through the proxy."""
